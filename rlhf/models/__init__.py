"""Models as Transformers lays them out: loaded, adapted, passed through, saved.

Begin with `load` and `save`. `folders` and `tokenizers` say what is usable; `lora`, `adapters` and `quantization` what
stands on frozen weights; `heads` and `scores` are reward and value models. `batches`, `flat` and `last_layer` leave out
work that no result needs; `sharding` makes sharded weights whole for a while.
"""
