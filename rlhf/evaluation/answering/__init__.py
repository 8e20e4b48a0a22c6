"""What candidates answer: `candidates` says who they are, `answers` how each comes to a response, `samples` draws many.

`few_shot`, `multiple_choice` and `outputs` are the ways that are no plain sampling; `kl` is the distance from the SFT
model; `cache` keeps what was drawn.
"""
