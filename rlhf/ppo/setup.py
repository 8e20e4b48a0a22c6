"""PPO's models and data, loaded once: four roles, training and held-out prompts, pretraining text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlhf import adapters, models
from rlhf.config import Config, ModelConfig
from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import EncodedPrompt, Encoder, context_of
from rlhf.data.records import Split
from rlhf.data.templates import ChatTemplate
from rlhf.engine import pick_device
from rlhf.errors import UserError
from rlhf.ppo.experience import Reference, Roles
from rlhf.ppo.order import EndlessOrder, permutation, seed_for
from rlhf.pretraining import PackedTexts

if TYPE_CHECKING:
    from rlhf.pipeline import StageContext


EAGER_TOKENS = 1024


def load_roles(context: StageContext) -> Roles:
    """Policy and value model to train, reference and reward model frozen; every dropout off."""
    parents = context.parents
    device = pick_device(context.config.launch)
    config = _with_attention(context.config, device)
    tokenizer = models.load_tokenizer(str(parents["policy"]), trust_remote_code=config.trust_remote_code)
    load = _on_one_base if context.config.ppo.share_base else _apart
    policy, value_model, reward_model = load(parents, config, tokenizer)
    for model in (policy, value_model):
        models.disable_dropout(model)
        model.to(device).eval()
        if config.gradient_checkpointing:
            # Checkpointing works in training mode alone, which with every dropout at 0 changes nothing else.
            model.train()
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    reference = Reference(policy)
    template = ChatTemplate(tokenizer, context.config.data.template)
    return Roles(policy, reference, reward_model.to(device), value_model, tokenizer, template)


def _apart(parents: Mapping[str, Path], config: ModelConfig, tokenizer: Any) -> tuple[Any, Any, Any]:
    """Policy, value model and reward model, each with its own weights; with LoRA the first two as adapters on them."""
    quantization = config.quantization
    policy: Any = models.load_causal_lm(str(parents["policy"]), config, quantization=quantization)
    value_model: Any = models.load_reward_model(str(_value_start(parents)), config, quantization=quantization)
    reward_model: Any = models.freeze(models.load_reward_model(str(parents["reward_model"]), config))
    if config.lora.r > 0:
        policy, value_model = (models.add_lora(model, config.lora) for model in (policy, value_model))
    return policy, value_model, reward_model


def _on_one_base(parents: Mapping[str, Path], config: ModelConfig, tokenizer: Any) -> tuple[Any, Any, Any]:
    """The same on the policy's weights, an adapter each; a reward model that is no adapter of them has its own."""
    base = parents["policy"]
    plain: Any = models.load_causal_lm(str(base), config, quantization=config.quantization)
    value_model = adapters.value_model_on(plain, tokenizer, base, _value_start(parents), config)
    reward_model = adapters.reward_model_on(plain, tokenizer, base, parents["reward_model"], config)
    if reward_model is None:
        reward_model = models.freeze(models.load_reward_model(str(parents["reward_model"]), config))
    # Last: what it puts into the plain model's blocks is the policy's alone.
    return models.add_lora(plain, config.lora), value_model, reward_model


def _value_start(parents: Mapping[str, Path]) -> Path:
    return parents.get("value_model", parents["reward_model"])


def _with_attention(config: Config, device: torch.device) -> ModelConfig:
    """The model's config with an attention chosen where the user left that to us.

    On a CPU plain matrix products train short sequences up to twice as fast as the fused kernel; their memory grows
    with the square of the length, so long ones stay with Transformers' choice.
    """
    longest = config.data.max_prompt_tokens + config.rollout.max_new_tokens
    if config.model.attn_implementation is None and device.type == "cpu" and longest <= EAGER_TOKENS:
        return dataclasses.replace(config.model, attn_implementation="eager")
    return config.model


@dataclass(frozen=True)
class Prompts:
    training: list[EncodedPrompt]
    held_out: list[EncodedPrompt]
    order: EndlessOrder

    def take(self, iteration: int, count: int) -> list[EncodedPrompt]:
        """The prompts of one iteration, each pass over them shuffled anew by the seed."""
        return [self.training[i] for i in self.order.take(iteration * count, count)]


def load_prompts(context: StageContext, roles: Roles) -> Prompts:
    """Prompts that leave room for a whole response; the held-out ones are the same for every seed."""
    config = context.config
    bad_rows = BadRows(config.data.on_bad_row, context.folder.path / "bad_rows.jsonl", append=True)
    encoder = Encoder(roles.template, config.data, bad_rows, context=context_of(roles.policy.config))
    room = config.rollout.max_new_tokens
    training = encoder.prompts(context.data.prompts(Split.train), room=room)
    held_out = encoder.prompts(context.data.prompts(Split.evaluation), room=room)
    chosen = permutation(len(held_out), seed=0)[: config.ppo.evaluation_prompts]
    order = EndlessOrder(len(training), seed_for(config.seed, "prompts"))
    return Prompts(training, [held_out[i] for i in chosen], order)


class PretrainingText:
    """Blocks of pretraining text for ppo.ptx, in an order fixed by the seed."""

    def __init__(self, blocks: Tensor, config: Config) -> None:
        ppo = config.ppo
        steps = ppo.epochs * ppo.num_minibatches
        self.per_iteration = steps * max(1, round(ppo.ptx.per_episode * ppo.batch_size / ppo.num_minibatches))
        self.blocks = blocks
        self.order = EndlessOrder(len(blocks), seed_for(config.seed, "pretraining"))

    def take(self, iteration: int) -> Tensor:
        """One iteration's blocks, (steps * sequences a step, sequence_length) int64."""
        return self.blocks[self.order.take(iteration * self.per_iteration, self.per_iteration)]


def load_pretraining(context: StageContext, roles: Roles) -> PretrainingText | None:
    """None where ppo.ptx.coef is 0. Raises UserError when the text does not fill one sequence."""
    config = context.config
    if config.ppo.ptx.coef == 0:
        return None
    length = config.ppo.ptx.sequence_length
    limit = context_of(roles.policy.config)
    if limit is not None and length > limit:
        raise UserError(f"ppo.ptx.sequence_length={length} is over the model's context of {limit}; lower it.")
    blocks = PackedTexts(context.data.texts(Split.train), roles.tokenizer, length, "ppo.ptx.sequence_length").blocks
    return PretrainingText(blocks.to(roles.device), config)
