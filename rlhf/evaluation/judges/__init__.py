"""Who says which answer is better: `judge` has the gold score and a reward model, `llm` asks a language model.

`llm_prompt` is what it is asked and how its reply is read, `llm_cache` keeps replies that were paid for.
"""
