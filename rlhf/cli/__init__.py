"""The command line: help, checked configs, processes, sweeps.

Begin with `main`: words become checked jobs in `compose`, and `job` runs one, here or on several ranks that `launcher`
starts. `sweep` is what is checked before a sweep's first job and shown after its last. Nothing in `main`, `help` and
`compose` imports torch, so that help and refusals answer at once.
"""
