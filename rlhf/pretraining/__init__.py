"""A small base model from nothing.

`base` makes its tokenizer and its architecture, `packed` lays texts into blocks of one length, and `text_loss` is what
a model loses on such blocks: the measure of what a stage has forgotten.
"""
