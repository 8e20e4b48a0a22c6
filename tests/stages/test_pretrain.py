from __future__ import annotations

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.config import ArchitectureConfig, Config, Device, LaunchConfig, ModelConfig, PretrainConfig, TrackerConfig
from stages import pretrain
from tests.support.fakes import ListSource, make_context


def test_pretraining_lowers_the_loss_and_saves_a_model_that_loads(tmp_path: Path) -> None:
    texts = [f"Anna has {i % 10} red hats. Ben saw {i % 7} cows." for i in range(300)]
    config = Config(
        model=ModelConfig(
            architecture=ArchitectureConfig(hidden_size=32, intermediate_size=64, layers=2, heads=2, vocab_size=400)
        ),
        pretrain=PretrainConfig(epochs=3, batch_size=8, sequence_length=32, bf16=False),
        tracker=TrackerConfig(progress=False),
        launch=LaunchConfig(device=Device.cpu),
    )
    context = make_context(tmp_path / "pretrain", config, {}, ListSource([], [], documents=texts))
    metrics = pretrain.run(context)

    losses = context.tracker.values("eval/loss")
    assert metrics["eval/loss"] < losses[0] < 6.0
    model = AutoModelForCausalLM.from_pretrained(context.folder.model_dir)
    assert model.num_parameters() == metrics["model/parameters"]
    assert AutoTokenizer.from_pretrained(context.folder.model_dir).chat_template
