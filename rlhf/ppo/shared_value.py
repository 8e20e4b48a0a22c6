"""A value model that is no more than a head on the policy's trunk."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rlhf.config import ModelConfig
from rlhf.models.heads import scalar_head
from rlhf.models.load import load_reward_model
from rlhf.models.lora import merged_state_dict, unwrap_lora


class SharedValueModel(nn.Module):
    """Reads values off the policy's last hidden state; its own parameters are the head's alone, which starts at 0.

    The policy is no submodule: an engine over this trains the head, while the loss's gradients reach the trunk too, and
    are part of the policy's step.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.score = scalar_head(policy)
        self._policy = (policy,)  # in a tuple, where torch does not look for submodules

    @property
    def base_model(self) -> Any:
        """The policy's trunk, where `models.hidden_states` looks for one."""
        return unwrap_lora(self._policy[0]).base_model

    @property
    def config(self) -> Any:
        """The trunk's, which says how it attends."""
        return self.base_model.config

    @property
    def device(self) -> torch.device:
        return self.score.weight.device

    def as_classifier(self, path: str, config: ModelConfig) -> Any:
        """A reward model of its own, trunk and head copied, to be saved and loaded as any value model is.

        path: the model that the policy started from, for its architecture.
        """
        classifier: Any = load_reward_model(path, config, fresh_head=True)
        trunk = merged_state_dict(self._policy[0])
        own = {name: trunk.get(name, tensor) for name, tensor in classifier.state_dict().items()}
        classifier.load_state_dict({**own, "score.weight": self.score.weight})
        return classifier
