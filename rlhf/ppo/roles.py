"""The models of PPO: policy, reference, reward model, value model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from rlhf.data.templates import ChatTemplate
from rlhf.models.freezing import freeze
from rlhf.ppo.scoring import Scorer


class Reference:
    """The policy as it was before PPO: a frozen copy, or with LoRA the policy itself with its adapter off."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self._copy = None if hasattr(policy, "peft_config") else freeze(copy.deepcopy(policy))

    @property
    def copy(self) -> nn.Module | None:
        """The frozen copy; None where the policy's adapter is what it differs by."""
        return self._copy

    @contextmanager
    def model(self) -> Iterator[nn.Module]:
        if self._copy is not None:
            yield self._copy
        else:
            with self._policy.disable_adapter():
                yield self._policy


@dataclass(frozen=True)
class Roles:
    """The models, what scores their responses, and what their texts are made with.

    value_model is None where advantages need none.
    """

    policy: Any
    reference: Reference
    scorer: Scorer
    value_model: Any
    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate

    @property
    def device(self) -> torch.device:
        return next(iter(self.policy.parameters())).device
