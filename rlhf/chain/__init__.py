"""What a run is: stages that describe themselves, and the one runner that goes by what they say.

Begin with `stages`, the table of all stages; `stage` says what a declaration holds. `runner` skips, resumes, refuses
and runs; `parents` finds the models a stage starts from, `lineage` says what decides a result and how two differ,
`place` where a stage lies. `agreement` refuses models that were given other text or tokens; `lock` keeps two processes
apart.
"""
