"""PPO's models and data, loaded once: four roles, training and held-out prompts, pretraining text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rlhf.config import Config, ModelConfig, ValueHead
from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import EncodedPrompt, Encoder, context_of
from rlhf.data.records import Split
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from rlhf.models import adapters
from rlhf.models.attention import with_attention
from rlhf.models.freezing import disable_dropout, freeze, freeze_parts
from rlhf.models.load import load_causal_lm, load_reward_model
from rlhf.models.lora import add_lora
from rlhf.models.tokenizers import load_tokenizer
from rlhf.ppo.order import EndlessOrder, permutation, seed_for
from rlhf.ppo.roles import Reference, Roles
from rlhf.ppo.scoring import load_scorer, reward_paths
from rlhf.ppo.shared_value import SharedValueModel
from rlhf.pretraining.packed import PackedTexts
from rlhf.training.engine import pick_device
from rlhf.training.zero import shard_frozen

if TYPE_CHECKING:
    from rlhf.training.context import StageContext


def load_roles(context: StageContext) -> Roles:
    """Policy and, where advantages need one, value model to train, reference and reward models frozen; no dropout."""
    parents = context.parents
    device = pick_device(context.config.launch)
    longest = context.config.data.max_prompt_tokens + context.config.rollout.max_new_tokens
    config = with_attention(context.config.model, device, longest)
    tokenizer = load_tokenizer(str(parents["policy"]), trust_remote_code=config.trust_remote_code)
    load = _on_one_base if context.config.ppo.share_base else _apart
    policy, value_model, reward_models = load(context, config, tokenizer)
    trained = [model for model in (policy, value_model) if model is not None]
    freeze_parts(trained, config.freeze)
    for model in trained:
        disable_dropout(model)
        model.to(device).eval()
        if config.gradient_checkpointing:
            # Checkpointing works in training mode alone, which with every dropout at 0 changes nothing else.
            model.train()
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if context.config.ppo.value_head == ValueHead.shared:
        value_model = SharedValueModel(policy)
    reference = Reference(policy)
    template = ChatTemplate(tokenizer, context.config.data.template)
    scorer = load_scorer(context, reward_models, template, device)
    for frozen in (reference.copy, *reward_models.values()):
        if frozen is not None:
            shard_frozen(frozen, context.config.zero)
    return Roles(policy, reference, scorer, value_model, tokenizer, template)


def _apart(context: StageContext, config: ModelConfig, tokenizer: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Policy, value model and reward models, each with its own weights; with LoRA the first two as adapters on them."""
    parents, quantization = context.parents, config.quantization
    policy: Any = load_causal_lm(str(parents["policy"]), config, quantization=quantization)
    value_model: Any = None
    if context.config.ppo.has_value_model:
        start = str(_value_start(parents))
        value_model = load_reward_model(start, config, quantization=quantization, fresh_head=True)
    reward_models = {name: _own_weights(path, config) for name, path in reward_paths(parents).items()}
    if config.lora.r > 0:
        policy = add_lora(policy, config.lora)
        value_model = add_lora(value_model, config.lora) if value_model is not None else None
    return policy, value_model, reward_models


def _on_one_base(context: StageContext, config: ModelConfig, tokenizer: Any) -> tuple[Any, Any, dict[str, Any]]:
    """The same on the policy's weights, an adapter each; a reward model that is no adapter of them has its own."""
    parents = context.parents
    base = parents["policy"]
    plain: Any = load_causal_lm(str(base), config, quantization=config.quantization)
    value_model: Any = None
    if context.config.ppo.has_value_model:
        value_model = adapters.value_model_on(plain, tokenizer, base, _value_start(parents), config)
    reward_models = {}
    for name, path in reward_paths(parents).items():
        adapted = adapters.reward_model_on(plain, tokenizer, base, path, config)
        reward_models[name] = adapted if adapted is not None else _own_weights(path, config)
    # Last: what it puts into the plain model's blocks is the policy's alone.
    return add_lora(plain, config.lora), value_model, reward_models


def _own_weights(path: Path, config: ModelConfig) -> Any:
    reward_model: Any = load_reward_model(str(path), config)
    return freeze(reward_model)


def _value_start(parents: Mapping[str, Path]) -> Path:
    return parents.get("value_model") or parents["reward_model"]


@dataclass(frozen=True)
class Prompts:
    training: Sequence[EncodedPrompt]
    held_out: list[EncodedPrompt]
    order: EndlessOrder

    def take(self, iteration: int, count: int, *, samples: int = 1) -> list[EncodedPrompt]:
        """An iteration's `count` prompts, `samples` times each side by side; each pass over them is shuffled anew."""
        distinct = count // samples
        return [self.training[i] for i in self.order.take(iteration * distinct, distinct) for _ in range(samples)]


def load_prompts(context: StageContext, roles: Roles) -> Prompts:
    """Prompts that leave room for a whole response; the held-out ones are the same for every seed."""
    config = context.config
    bad_rows = BadRows(config.data.on_bad_row, context.folder.path / "bad_rows.jsonl", append=True)
    encoder = Encoder(
        roles.template,
        config.data,
        bad_rows,
        context=context_of(roles.policy.config),
        show_progress=config.tracker.progress,
    )
    room = config.rollout.max_new_tokens
    training = encoder.prompts(context.data.prompts(Split.train), room=room)
    held_out = encoder.prompts(context.data.prompts(Split.evaluation), room=room)
    chosen = permutation(len(held_out), seed=0)[: config.ppo.evaluation_prompts]
    order = EndlessOrder(len(training), seed_for(config.seed, "prompts"))
    return Prompts(training, [held_out[i] for i in chosen], order)


class PretrainingText:
    """Blocks of pretraining text for ppo.ptx, in an order fixed by the seed."""

    def __init__(self, blocks: Tensor, config: Config) -> None:
        self.count = self.per_iteration(config)
        self.blocks = blocks
        self.order = EndlessOrder(len(blocks), seed_for(config.seed, "pretraining"))

    @staticmethod
    def per_iteration(config: Config) -> int:
        """Sequences an iteration takes, as many for each of its optimizer steps."""
        ppo = config.ppo
        steps = ppo.epochs * ppo.num_minibatches
        return steps * max(1, round(ppo.ptx.per_episode * ppo.batch_size / ppo.num_minibatches))

    def take(self, iteration: int) -> Tensor:
        """One iteration's blocks, (steps * sequences a step, sequence_length) int64."""
        return self.blocks[self.order.take(iteration * self.count, self.count)]


def load_pretraining(context: StageContext, roles: Roles) -> PretrainingText | None:
    """None where ppo.ptx.coef is 0. Raises UserError when the text does not fill one sequence."""
    config = context.config
    if config.ppo.ptx.coef == 0:
        return None
    length = config.ppo.ptx.sequence_length
    limit = context_of(roles.policy.config)
    if limit is not None and length > limit:
        raise UserError(f"ppo.ptx.sequence_length={length} is over the model's context of {limit}; lower it.")
    packed = PackedTexts(
        context.data.texts(Split.train),
        roles.tokenizer,
        length,
        "ppo.ptx.sequence_length",
        most=PretrainingText.per_iteration(config) * config.ppo.iterations,
    )
    return PretrainingText(packed.blocks.to(roles.device), config)
