"""Who wins, and what it cost: comparisons as in arXiv:2203.02155, and sweeps as in arXiv:2210.10760.

From the top: `comparison/` and `sweeps/` and `published/` make reports; `tasks/` are benchmarks and text metrics;
`answering/` draws what candidates answer; `judges/` say which answer is better; `statistics/` what follows from
verdicts, with intervals; `pages/` is what reports are made of. Begin with `comparison/summary`. Everywhere `summary` is
a report as data, `text` what a terminal shows, `page` what a browser does, `tables` are for both, `plots` figures.
"""
