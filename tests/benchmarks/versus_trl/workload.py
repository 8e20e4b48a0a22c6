"""What both sides are given: models on disk, a tokenizer of one token a word, prompts, demonstrations, rankings.

Both environments import this module, so it needs torch, transformers and tokenizers alone. All of it is a function of
the numbers here and of seeds.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

VOCABULARY = 2048
PAD, END = 0, 1
LAYERS, HEADS = 4, 4
CONTEXT = 512
PROMPT_TOKENS = (8, 48)
COMPLETIONS = 4
LEARNING_RATE = 1e-6  # so small that the policy, and with it the length of responses, stays what it was
SFT_BATCH = 32  # rows a step
REWARD_BATCH = 16  # prompts a step
PPO_EPOCHS = 4
# The chance of the end token at each token of a response: responses of 48 tokens at most have the mean of PERFORMANCE.
END_CHANCE = {"mixed": 0.027, "long": 1e-7, "short": 0.06}


@dataclass(frozen=True)
class Job:
    """One thing to time on one side; everything a worker process needs to know."""

    side: str  # ours, peer, floor
    task: str  # ppo, rollout, reward, sft
    precision: str  # float32: torch's own; default: what each side does when not told; settings: TRL with ours
    lengths: str = "mixed"
    batch: int = 64  # prompts an iteration of PPO
    new_tokens: int = 48
    hidden: int = 256  # width of the model; 256 makes 4.2 million weights


def folder_of(root: Path, job: Job) -> Path:
    return root / f"{job.hidden}-{job.lengths}"


def save_models(folder: Path, hidden: int, lengths: str) -> None:
    """policy/ and reward_model/ with their tokenizer; the same at every call, and left alone where they are."""
    if (folder / "reward_model" / "config.json").exists():
        return
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=round(hidden * 8 / 3 / 16) * 16,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    torch.manual_seed(0)
    policy = LlamaForCausalLM(config).eval()
    set_end_chance(policy, END_CHANCE[lengths])
    torch.manual_seed(1)
    reward_model = LlamaForSequenceClassification(LlamaConfig(**{**config.to_dict(), "num_labels": 1}))
    for name, model in (("policy", policy), ("reward_model", reward_model)):
        model.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)


@torch.no_grad()
def set_end_chance(policy: LlamaForCausalLM, chance: float) -> None:
    """Make the end token about this likely after any text, by weights alone, as a Llama has no bias in its head.

    Channel 0 of the residual stream becomes a constant that no layer writes to and only the end token's logit reads.
    """
    body, head = policy.model, policy.lm_head.weight
    head[:, 0] = 0.0
    head[END] = 0.0
    body.embed_tokens.weight[:, 0] = 0.1
    for layer in body.layers:
        layer.self_attn.o_proj.weight[0] = 0.0
        layer.mlp.down_proj.weight[0] = 0.0
    text = torch.randint(2, VOCABULARY, (16, 64), generator=torch.Generator().manual_seed(0))
    constant = body(text).last_hidden_state[..., 0].mean()
    others = policy(text).logits[..., 2:].logsumexp(-1).mean()
    head[END, 0] = (math.log(chance / (1 - chance)) + others) / constant


def tokenizer() -> PreTrainedTokenizerFast:
    """Token i is the word "wi", so texts and ids say the same."""
    words = {"<pad>": PAD, "<end>": END} | {f"w{i}": i for i in range(2, VOCABULARY)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", pad_token="<pad>", padding_side="left", model_max_length=CONTEXT
    )
    wrapped.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    return wrapped


def text(ids: list[int]) -> str:
    return " ".join(f"w{i}" for i in ids)


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    """Random tokens, 8 to 48 a prompt."""
    rng = random.Random(f"prompts:{seed}")
    return [_words(rng, rng.randint(*PROMPT_TOKENS)) for _ in range(count)]


def demonstrations(count: int, lengths: str) -> list[tuple[list[int], list[int]]]:
    """Prompts and responses, these as long as the policy's would be, without their end token."""
    rng = random.Random(f"demonstrations:{lengths}")
    return [(prompt, _response(rng, lengths)) for prompt in prompts(count, seed=1)]


def rankings(count: int, lengths: str) -> list[tuple[list[int], list[list[int]]]]:
    """Prompts with four completions, best first."""
    rng = random.Random(f"rankings:{lengths}")
    return [(prompt, [_response(rng, lengths) for _ in range(COMPLETIONS)]) for prompt in prompts(count, seed=2)]


def _response(rng: random.Random, lengths: str) -> list[int]:
    length = 1
    while length < 47 and rng.random() > END_CHANCE[lengths]:
        length += 1
    return _words(rng, length)


def _words(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(2, VOCABULARY) for _ in range(count)]
