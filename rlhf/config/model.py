"""model.*: which model, and what of it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.config.checks import require, require_fraction, require_positive
from rlhf.config.choices import DType, Quantization


@dataclass
class LoraConfig:
    r: int = 0  # rank of the adapters; 0 trains every weight
    alpha: float = 16.0  # adapters are scaled by alpha / r
    dropout: float = 0.0  # on what goes into the adapters; PPO switches it off
    target_modules: list[str] = field(default_factory=list)  # names of linear layers; empty: every linear but the head

    def __post_init__(self) -> None:
        require(self.r >= 0, f"model.lora.r is {self.r}; use 0 (off) or a positive rank.")
        require_fraction("model.lora", open_above=True, dropout=self.dropout)


@dataclass
class FreezeConfig:
    """Weights that no stage trains, of the policy and of reward and value model alike; they have no optimizer state."""

    names: list[str] = field(default_factory=list)  # whole parts of weights' names: embed_tokens, layers.0, *_proj
    first_layers: int = 0  # layers, counted from the input, embeddings not included; 0: none

    def __post_init__(self) -> None:
        require(self.first_layers >= 0, f"model.freeze.first_layers is {self.first_layers}; use 0 (none) or more.")


@dataclass
class ArchitectureConfig:
    """Shape of a Llama to train from nothing; read by stage=pretrain alone."""

    hidden_size: int = 128  # width of the residual stream
    intermediate_size: int = 352  # width inside the MLP
    layers: int = 4  # decoder blocks
    heads: int = 4  # of attention; hidden_size splits evenly over them
    context: int = 1024  # tokens
    vocab_size: int = 1024  # the tokenizer is trained to this size on the same corpus

    def __post_init__(self) -> None:
        require_positive("model.architecture", **vars(self))
        require(
            self.hidden_size % self.heads == 0,
            f"model.architecture.hidden_size={self.hidden_size} does not split into "
            f"{self.heads} heads; change model.architecture.heads.",
        )


@dataclass
class ModelConfig:
    path: str = "builtin:sandbox-m"  # hub id, local folder, or builtin:sandbox-{s,m,l}
    dtype: DType = DType.float32  # to compute and save in; trained weights, log-probs and losses stay float32
    attn_implementation: str | None = None  # eager, sdpa, flash_attention_2, or varlen: sdpa, and no padding on GPUs
    trust_remote_code: bool = False  # runs Python that ships with the model; off unless you know the author
    gradient_checkpointing: bool = False  # activations are computed again in the backward pass, which saves memory
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    quantization: Quantization = Quantization.none  # of the frozen weights under adapters, by bitsandbytes
    architecture: ArchitectureConfig = field(default_factory=ArchitectureConfig)

    def __post_init__(self) -> None:
        require(
            self.quantization == Quantization.none or self.lora.r > 0,
            f"model.quantization={self.quantization.value} leaves nothing to train but adapters; set model.lora.r=16, "
            "or model.quantization=none.",
        )
