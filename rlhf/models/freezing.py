"""What of a model is trained: frozen models, frozen parts, dropout."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rlhf.config import FreezeConfig
from rlhf.errors import UserError
from rlhf.models.lora import unwrap_lora

if TYPE_CHECKING:
    import torch
    from torch import nn

    ModelT = TypeVar("ModelT", bound=nn.Module)


_ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")


def freeze(model: ModelT) -> ModelT:
    """The same model in evaluation mode, with no parameter that takes a gradient."""
    model.requires_grad_(False)
    model.eval()
    return model


def freeze_parts(trained: Sequence[Any], config: FreezeConfig) -> None:
    """Take the gradient off what `config` says, in each of the models; those are with their adapters already.

    A name matches a weight if it is one or more whole parts of the weight's name, between dots; * and ? are wildcards.
    Raises UserError for a name that no weight of any of the models has, for more layers than one has, and for a model
    that nothing of is left to train.
    """
    unmatched = list(config.names)
    for model in trained:
        if config.first_layers > 0:
            for layer in _first_layers(model, config.first_layers):
                layer.requires_grad_(False)
        for name, parameter in model.named_parameters():
            found = [p for p in config.names if fnmatch.fnmatchcase(f".{name}.", f"*.{p}.*")]
            if found:
                parameter.requires_grad_(False)
                unmatched = [p for p in unmatched if p not in found]
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError(
                f"model.freeze leaves nothing of {type(unwrap_lora(model)).__name__} to train; freeze less."
            )
    if unmatched:
        example = next(name for name, _ in trained[0].named_parameters())
        raise UserError(
            f"model.freeze.names holds {unmatched[0]}, which no weight's name has as a whole part; the first weight is "
            f"{example}."
        )


def _first_layers(model: Any, count: int) -> Sequence[nn.Module]:
    from torch import nn

    plain = unwrap_lora(model)
    total = plain.config.get_text_config().num_hidden_layers
    if count > total:
        raise UserError(f"model.freeze.first_layers is {count}, but {type(plain).__name__} has {total} layers.")
    layers = [m for m in plain.modules() if isinstance(m, nn.ModuleList) and len(m) == total]
    if not layers:
        raise UserError(f"model.freeze.first_layers finds no list of layers in {type(plain).__name__}; set it to 0.")
    return list(layers[0])[:count]


def disable_dropout(model: nn.Module) -> None:
    """Every dropout rate to 0, those that attention reads as plain numbers too."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", 0.0)  # noqa: B010, to mypy every attribute of a module is a tensor


def residual_dropout(model: nn.Module, p: float) -> list[torch.utils.hooks.RemovableHandle]:
    """Dropout with rate `p` on what attention and MLP add to the residual stream, while the model is in training mode.

    Returns handles that take it off again. Raises UserError for an architecture whose layers it does not know.
    """
    from torch import nn
    from torch.nn import functional as F

    def drop(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (F.dropout(output[0], p), *output[1:])
        return F.dropout(output, p)

    handles = []
    for layers in (m for m in model.modules() if isinstance(m, nn.ModuleList)):
        for layer in layers:
            branches = dict(layer.named_children())
            attention = next((branches[name] for name in _ATTENTION_NAMES if name in branches), None)
            if attention is not None and "mlp" in branches:
                handles += [branch.register_forward_hook(drop) for branch in (attention, branches["mlp"])]
    if not handles:
        raise UserError(
            f"sft.residual_dropout is {p}, but {type(model).__name__} has no attention and mlp for it; set it to 0."
        )
    return handles
