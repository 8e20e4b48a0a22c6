"""Whether a folder's weights are the model's: none missing, so that none is random, and none left over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.errors import UserError

_SHOWN = 3  # names in a refusal
_HEADS = re.compile(r"(lm_head|embed_out|output_layer)\.(weight|bias)")  # of language models, which a scorer leaves out
_SCORE = re.compile(r"(.*\.)?score\.weight")
# Constants that older versions of Transformers wrote beside the weights, and newer ones compute.
_CONSTANTS = re.compile(r".*(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids)")
# What wraps a model while it trains and stays in the names when the wrapped one is saved.
_WRAPPERS = {
    "_orig_mod.": "torch.compile names weights so; save model._orig_mod",
    "module.": "DistributedDataParallel and DeepSpeed name weights so; save model.module",
    "base_model.model.": "PEFT names weights so; save model.merge_and_unload()",
    "_fsdp_wrapped_module.": "FSDP names weights so; save the whole state dict",
}


def check_weights(info: Mapping[str, Any], path: str, *, scores: bool = False, fresh_head: bool = False) -> None:
    """Raises UserError for what `from_pretrained` would have filled with random numbers, or thrown away.

    info: its loading info.  scores: the model has a head for scores in place of a language model's; with fresh_head
    it may be the first.
    """
    for key, found, wanted in info["mismatched_keys"]:
        if _SCORE.fullmatch(key):
            raise UserError(f"The model {path} has a head for {found[0]} labels; a reward model has one score.")
        raise UserError(
            f"The model folder {path} has {key} with the shape {tuple(found)}, where its config.json means "
            f"{tuple(wanted)}. Mend its config.json, or save it again."
        )
    missing = sorted(info["missing_keys"])
    unexpected = sorted(key for key in info["unexpected_keys"] if not _CONSTANTS.fullmatch(key))
    if scores:
        unexpected = [key for key in unexpected if not _HEADS.fullmatch(key)]
        headless = [key for key in missing if _SCORE.fullmatch(key)]
        if headless and not fresh_head:
            raise UserError(
                f"The model {path} has no head for a score: it is a language model, or its head was saved by another "
                "name. Train a reward model with stage=reward, or name one."
            )
        missing = [key for key in missing if key not in headless]
    elif any(_SCORE.fullmatch(key) for key in unexpected):
        raise UserError(f"The model {path} has a head for a score: it is a reward model and writes no text.")
    for prefix, advice in _WRAPPERS.items():
        if any(key.startswith(prefix) for key in unexpected):
            raise UserError(f"The weights in {path} begin with {prefix}, so none would be found: {advice}.")
    if missing or unexpected:
        said = [f"lacks {_names(missing)}"] if missing else []
        said += [f"has {_names(unexpected)}, which its config.json has no place for"] if unexpected else []
        raise UserError(
            f"The model folder {path} {' and '.join(said)}: part of it would start from random numbers, or be left "
            "out. Save it again, or mend its config.json."
        )


def _names(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
