"""The schema and conf/: every file composes, recipes hold the papers' numbers, mistakes are sentences."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import pytest

from rlhf.chain.jobs import job_name
from rlhf.cli import compose, main
from rlhf.config import Config, DataSourceName, StageName, unread
from rlhf.config.keys import all_keys, all_nodes, flatten, mappings, show
from rlhf.errors import UserError


def jobs(*words: str, multirun: bool = False) -> list[compose.Job]:
    overrides = [compose.normalise(word) for word in words]
    return compose.expand(argparse.Namespace(overrides=overrides, config_dir=None, multirun=multirun))


def config_of(*words: str) -> Config:
    (job,) = jobs(*words)
    return job.config


def refusal(*words: str, multirun: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        jobs(*words, multirun=multirun)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return message


OPTIONS = [(group, option) for group, options in compose.groups().items() if group != "sweep" for option in options]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{g}={o}" for g, o in OPTIONS])
def test_every_file_in_conf_composes(group: str, option: str) -> None:
    words = [f"{group}={option}"]
    if group == "data" and option != "sandbox":
        words.append("data.path=rows.jsonl")
    if option == "phrasings":
        words.append("data.phrasings=templates.yaml")
    if option == "custom":
        words.append("model.path=some/folder")
    if option == "llm":
        words += ["judge.llm.url=http://localhost:8000/v1", "judge.llm.model=m"]
    assert isinstance(config_of(*words), Config)


def test_defaults_of_the_schema_are_the_defaults_of_conf() -> None:
    """But for the few that a group file picks; a second set of numbers in YAML would hide the documented ones."""
    ours, schema = flatten(config_of("model=custom", "model.path=x")), flatten(Config())
    differing = {key for key in schema if ours[key] != schema[key]}
    assert differing == {"data.max_prompt_tokens", "data.max_response_tokens", "model.path"}


def test_a_model_named_by_its_path_does_not_get_the_sandbox_models_learning_rates() -> None:
    assert compose.with_model_group(["stage=sft", "model.path=/some/folder"])[-1] == "model=custom"
    assert compose.with_model_group(["model.path=x", "model=gpt2"]) == ["model.path=x", "model=gpt2"]
    assert compose.with_model_group(["model.path=builtin:sandbox-s"]) == ["model.path=builtin:sandbox-s"]
    words = compose.with_model_group(["model.path=/some/folder"])
    assert config_of(*words).sft.optim.lr < 1e-4 < config_of().sft.optim.lr


def test_architectures_of_the_base_models() -> None:
    shapes = {}
    for size in "sml":
        shape = config_of(f"model=sandbox-{size}").model.architecture
        shapes[size] = (shape.hidden_size, shape.layers, shape.heads, shape.intermediate_size)
    assert shapes == {"s": (64, 3, 2, 176), "m": (128, 4, 4, 352), "l": (192, 5, 4, 512)}


INSTRUCTGPT = {  # arXiv:2203.02155, appendix C: what all sizes share
    "sft.epochs": 16,
    "sft.residual_dropout": 0.2,
    "sft.optim.min_lr_ratio": 0.1,
    "sft.optim.warmup_ratio": 0.0,
    "sft.optim.betas": [0.9, 0.95],
    "reward.optim.lr": 9e-6,
    "reward.optim.min_lr_ratio": 0.1,
    "reward.batch_size": 64,
    "reward.epochs": 1,
    "ppo.kl.coef": 0.02,
    "ppo.kl.target": None,
    "ppo.episodes": 256000,
    "ppo.batch_size": 512,
    "ppo.num_minibatches": 8,
    "ppo.epochs": 1,
    "ppo.clip_range": 0.2,
    "ppo.gamma": 1.0,
    "ppo.ema_decay": 0.992,
    "ppo.warmup_iterations": 10,
    "ppo.optim.min_lr_ratio": 1.0,
    "ppo.optim.betas": [0.9, 0.95],
    "ppo.ptx.coef": 27.8,
    "ppo.ptx.per_episode": 8,
    "rollout.temperature": 1.0,
    "rollout.max_new_tokens": 1024,
    "data.max_prompt_tokens": 1024,
    "data.max_response_tokens": 1024,
}
RECIPES: dict[str, dict[str, Any]] = {
    "instructgpt_1p3b": {
        **INSTRUCTGPT,
        **{"sft.optim.lr": 9.65e-6, "sft.batch_size": 32, "ppo.value_optim.lr": 9e-6},
    },
    "instructgpt_6b": {
        **INSTRUCTGPT,
        **{"sft.optim.lr": 9.65e-6, "sft.batch_size": 32, "ppo.value_optim.lr": 9e-6},
    },
    "instructgpt_175b": {
        **INSTRUCTGPT,
        **{"sft.optim.lr": 5.03e-6, "sft.batch_size": 8, "ppo.value_optim.lr": 5e-6},
    },
    "instructgpt_1p3b_init": {"sft.epochs": 2, "sft.batch_size": 32, "sft.optim.lr": 5e-6},
    "instructgpt_6b_init": {"sft.epochs": 2, "sft.batch_size": 32, "sft.optim.lr": 1.04e-5},
    "instructgpt_175b_init": {
        **{"sft.epochs": 2, "sft.batch_size": 8, "sft.optim.lr": 2.45e-6},
        **{"sft.pretraining_fraction": 0.1, "sft.optim.min_lr_ratio": 0.1},
    },
    "tldr": {  # arXiv:2403.17031
        "sft.optim.lr": 3e-6,
        "sft.batch_size": 128,
        "sft.optim.eps": 1e-5,
        "reward.optim.lr": 3e-6,
        "reward.batch_size": 64,
        "ppo.optim.lr": 3e-6,
        "ppo.value_optim.lr": 3e-6,
        "ppo.kl.coef": 0.05,
        "ppo.epochs": 4,
        "ppo.num_minibatches": 1,
        "ppo.episodes": 1000000,
        "ppo.batch_size": 512,
        "ppo.whiten_rewards": True,
        "ppo.missing_eos_score": -1.0,
        "data.max_prompt_tokens": 512,
        "data.max_response_tokens": 53,
        "rollout.max_new_tokens": 53,
        "rollout.temperature": 0.7,
        "compare.temperature": 0.01,
    },
}


def test_every_recipe_is_checked_below() -> None:
    assert set(RECIPES) == set(compose.groups()["recipe"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_holds_the_papers_numbers(recipe: str) -> None:
    flat = flatten(config_of(f"+recipe={recipe}"))
    assert {key: flat[key] for key in RECIPES[recipe]} == RECIPES[recipe]


def test_a_model_named_on_the_command_line_wins_over_the_recipes() -> None:
    assert config_of("+recipe=tldr").model.path == "EleutherAI/pythia-1b-deduped"
    assert config_of("+recipe=tldr", "model=gpt2").model.path == "openai-community/gpt2"
    assert config_of("+recipe=tldr", "ppo.kl.coef=0.3").ppo.kl.coef == 0.3


@pytest.mark.parametrize("recipe", RECIPES)
def test_debug_shrinks_every_recipe(recipe: str) -> None:
    shrunk = config_of(f"+recipe={recipe}", "+debug=tiny")
    assert shrunk.ppo.episodes <= 32
    assert shrunk.rollout.max_new_tokens <= 8
    assert shrunk.sft.epochs == 1


def test_debug_shrinks_a_recipe_that_is_named_after_it() -> None:
    words = ["+debug=tiny", "+recipe=tldr", "seed=1"]
    assert config_of(*words).ppo.episodes == 1000000  # what Hydra alone makes of it
    assert config_of(*compose.debug_last(words)) == config_of("+recipe=tldr", "+debug=tiny", "seed=1")


def test_recipe_and_debug_need_no_plus() -> None:
    assert config_of("recipe=tldr", "debug=tiny") == config_of("+recipe=tldr", "+debug=tiny")


def test_zero_takes_its_stage_as_a_number() -> None:
    assert [config_of(f"zero={z}").zero.stage for z in ("none", "1", "2", "3", "3_offload")] == [0, 1, 2, 3, 3]
    assert [job.config.zero.stage for job in jobs("zero=1,3", multirun=True)] == [1, 3]


def test_candidates_are_named_without_a_plus() -> None:
    assert config_of("compare.candidates.mine=runs/x/ppo/model").compare.candidates == {"mine": "runs/x/ppo/model"}
    assert config_of("compare.outputs.a=r.jsonl@ppo").compare.outputs == {"a": "r.jsonl@ppo"}


REFUSALS = [
    (["ppo.kl.coeff=1"], "no setting ppo.kl.coeff. Did you mean ppo.kl.coef"),
    (["+ppo.kl.coeff=1"], "no setting ppo.kl.coeff. Did you mean ppo.kl.coef"),
    (["++ppo.lr=1"], "no setting ppo.lr. Did you mean ppo.optim.lr"),
    (["modle=gpt2"], "no setting modle. Did you mean model?"),
    (["model=gtp2"], "Did you mean gpt2?"),
    (["zero=4"], "zero is one of 1, 2, 3, 3_offload, none"),
    (["recipe=tdlr"], "Did you mean tldr?"),
    (["stage=reward_model"], "one of all, pretrain, sft, reward, ppo, compare"),
    (["sft.epochs=1.5"], "sft.epochs takes a whole number"),
    (["ppo.kl.coef=much"], "ppo.kl.coef=much does not fit; ppo.kl.coef takes a number"),
    (["ppo.kl.target=[1]"], "a number, or null"),
    (["model.path=null"], "model.path takes a text"),
    (["ppo.kl=0.1"], "ppo.kl is a group of settings; set one of them, such as ppo.kl.coef"),
    (["ppo.kl.coef=-1"], "use 0 or more"),
    (["ppo.batch_size=48", "ppo.num_minibatches=5"], "set ppo.num_minibatches to 4 or 6"),
    (["ppo.value_optim.lr=0"], "ppo.value_optim.lr is 0.0; it must be above 0"),
    (["data=hh_rlhf"], "set data.path=FILE"),
    (["data=alpaca", "data.path=x", "judge=gold"], "use judge=reward_model"),
    (["ppo.missing_eos_score=-1"], "ppo.missing_eos_penalty"),
    (["ppo.advantage=rloo"], "set ppo.samples_per_prompt to 2 or more"),
    (["ppo.samples_per_prompt=3"], "set ppo.samples_per_prompt to 2 or 4"),
    (["ppo.advantage=group", "ppo.samples_per_prompt=4", "ppo.gamma=0.9"], "set ppo.gamma=1"),
    (["ppo.advantage=rloo", "ppo.samples_per_prompt=4", "ppo.value_model=x"], "trains no value model"),
    (["ppo.value_warmup_iterations=50"], "leaves no iteration to train the policy in; there are 50"),
    (["ppo.dual_clip=0.5"], "use more than 1"),
    (["ppo.target_kl=0"], "or null (off)"),
    (["ppo.entropy_coef=-0.1"], "use 0 (off) or more"),
    (["ppo.rollout_correction_cap=0.5"], "use 1 or more"),
    (["ppo.length_penalty=-1"], "use 0 (off) or more"),
    (["ppo.max_kl=0"], "use more than 0 nats"),
    (["ppo.keep=best", "ppo.evaluate_every=0"], "set it to 1 or more"),
    (["model.freeze.first_layers=-1"], "use 0 (none) or more"),
    (["stage=pretrain", "model.freeze.names=[score]"], "starts from none"),
    (["ppo.value_head=shared", "ppo.value_warmup_iterations=2"], "cannot be trained without the policy"),
    (["ppo.value_head=shared", "ppo.value_model=x"], "starts on the policy's trunk"),
    (["ppo.value_head=shared", "ppo.advantage=rloo", "ppo.samples_per_prompt=2"], "leave ppo.value_head=shared out"),
    (["ppo.share_base=true"], "set model.lora.r=16"),
    (["model.quantization=nf4"], "set model.lora.r=16"),
    (["compare.temperature=0"], "use more than 0"),
    (["compare.few_shot=-1"], "compare.few_shot is -1; use 1 or more"),
    (["compare.best_of=[1,4]"], "2 or more each"),
    (["compare.best_of=[4,4]"], "different numbers"),
    (["compare.outputs.a=f.jsonl", "compare.candidates.a=gpt2"], "both name a"),
    (["data.evaluation_fraction=1.5"], "up to 1"),
    (["judge=llm"], "set judge.llm.url=URL, up to and with /v1, and judge.llm.model=NAME"),
    (["judge=llm", "judge.llm.url=http://localhost:8000/v1"], "judge.llm needs both"),
    (["judge=llm", "judge.llm.url=localhost:8000/v1", "judge.llm.model=m"], "starts with http:// or https://"),
    (["judge.llm.url=http://localhost:8000/v1", "judge.llm.model=m"], "add llm to judge.names"),
    (["judge.llm.temperature=-1"], "judge.llm.temperature is -1.0"),
    (["judge.llm.limit_name=tokens"], "use max_tokens or max_completion_tokens"),
    (["judge.llm.requests_per_minute=-1"], "judge.llm.requests_per_minute is -1.0; use 0 or more"),
    (["judge.llm.input_price=inf"], "judge.llm.input_price is inf"),
    (["judge.llm.max_tokens=0"], "judge.llm.max_tokens is 0"),
    (["seed=1,2"], "add -m to run them all"),
    (["~ppo"], "would remove"),
    (["stage"], "write KEY=VALUE"),
    (["run.name=[1"], "put quotes"),
    (["run.name=a/b"], "run.root"),
    (["seed=${nothing}"], "'nothing' not found"),
]


@pytest.mark.parametrize(("words", "expected"), REFUSALS, ids=[" ".join(words) for words, _ in REFUSALS])
def test_mistake_is_one_sentence_with_the_way_out(words: list[str], expected: str) -> None:
    assert expected in refusal(*words)


def test_a_bad_value_in_the_last_job_is_refused_before_the_first() -> None:
    assert "ppo.kl.coef is -1.0" in refusal("ppo.kl.coef=0,0.1,-1", "seed=1,2", multirun=True)
    assert "ppo.kl.coef=x" in refusal("ppo.kl.coef=0,x", multirun=True)
    assert "no model=gpt9" in refusal("model=gpt2,gpt9", multirun=True)
    assert "set ppo.num_minibatches to" in refusal("ppo.batch_size=128,130", "ppo.num_minibatches=4", multirun=True)


def test_sweep_is_every_combination_named_by_what_differs() -> None:
    found = jobs("stage=ppo", "ppo.kl.coef=0,0.1", "seed=1,2", "ppo.epochs=1", multirun=True)
    assert [job.name for job in found] == [
        f"ppo.kl.coef={coef},seed={seed}" for coef, seed in itertools.product(("0", "0.1"), (1, 2))
    ]
    assert [job.swept for job in found][:2] == [("ppo.kl.coef=0", "seed=1"), ("ppo.kl.coef=0", "seed=2")]
    assert [(job.config.ppo.kl.coef, job.config.seed) for job in found] == [(0, 1), (0, 2), (0.1, 1), (0.1, 2)]
    assert all(job.config.ppo.epochs == 1 and job.config.stage == StageName.ppo for job in found)


def test_sweep_over_groups_and_from_a_file() -> None:
    assert [job.config.model.path for job in jobs("model=sandbox-s,sandbox-l", multirun=True)] == [
        "builtin:sandbox-s",
        "builtin:sandbox-l",
    ]
    kl = jobs("+sweep=kl", "stage=ppo", "ppo.seed=7")
    assert [job.config.ppo.kl.coef for job in kl] == [0, 0.02, 0.05, 0.1, 0.2, 0.5]
    assert {job.config.ppo.seed for job in kl} == {7}


def test_job_names_are_folder_names() -> None:
    assert job_name(["stage=ppo"]) is None
    assert job_name(["+recipe=tldr", "zero='3'"]) == "recipe=tldr,zero=3"
    assert "/" not in (job_name(["model.path=/some/folder"]) or "")
    long = [job_name([f"data.path={'x' * 300}{i}"]) or "" for i in range(2)]
    assert len(long[0].encode()) <= 150
    assert long[0] != long[1]


def test_every_key_says_what_it_takes() -> None:
    for key in all_keys().values():
        assert key.allowed, key.name
        assert show(key.default) != "", key.name


def test_reward_sources_have_names_and_weights() -> None:
    ppo = config_of(
        "ppo.reward_fn=my.module:score",
        "ppo.reward_models.helpful=some/folder",
        "ppo.reward_weights.helpful=2",
        "ppo.reward_weights.reward_fn=-0.5",
    ).ppo
    assert ppo.reward_fn == "my.module:score"
    assert ppo.reward_models == {"helpful": "some/folder"}
    assert ppo.reward_weights == {"helpful": 2.0, "reward_fn": -0.5}
    assert not ppo.takes_reward_model
    assert config_of().ppo.takes_reward_model
    assert config_of("ppo.reward_fn=a:b", "ppo.reward_weights.reward_model=1").ppo.takes_reward_model
    assert config_of("ppo.reward_models.x=a/b", "ppo.reward_model=c/d").ppo.takes_reward_model


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ppo.reward_fn=score"], "name a function in a module as my.module:score"),
        (["ppo.reward_fn=my-module:score"], "my.module:score"),
        (["ppo.reward_models.reward_fn=a/b"], "neither reward_model nor reward_fn"),
        (["ppo.reward_weights.helpful=1"], "ppo.reward_weights.helpful weighs no source of the score"),
        (["ppo.reward_weights.reward_fn=1"], "there are reward_model."),
        (["ppo.reward_weights.reward_model=nan"], "use a finite number"),
        (["ppo.reward_weights.reward_model=much"], "ppo.reward_weights.reward_model"),
    ],
)
def test_reward_sources_that_cannot_be_are_refused(words: list[str], says: str) -> None:
    assert says in refusal(*words)


def test_a_file_may_stand_for_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("prompt,response\na,b\n")
    assert compose.with_data_path(["stage=data", "data=mine.csv"]) == ["stage=data", "data=jsonl", "data.path=mine.csv"]
    assert compose.with_data_path(["data=./none.jsonl"]) == ["data=jsonl", "data.path=./none.jsonl"]
    for word in ("data=hh_rlhf", "data=hh_rlfh", "data=sandbox"):
        assert compose.with_data_path([word]) == [word]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["data=jsonl", "data.path=x", "data.columns.prmpt=q"], r"data\.columns\.prmpt names nothing that is read"),
        (["data=alpaca", "data.path=x", "data.columns.prompt=q"], r"with data=alpaca leave it out"),
        (["data=phrasings", "data.path=x"], r"data\.phrasings=FILE, the templates, belong together"),
        (["data=jsonl", "data.path=x", "data.phrasings=y"], r"belong together"),
        (["data=jsonl", "data.path=x", "data.workers=0"], r"data\.workers is 0"),
        (["data.quality.near_duplicates=1.5"], r"data\.quality\.near_duplicates"),
        (["data.quality.min_response_words=9", "data.quality.max_response_words=3"], r"max_response_words is 3"),
        (["data.mixture.rows=0"], r"data\.mixture\.rows is 0"),
        (["sft.subset=0"], r"sft\.subset is 0"),
        (["sft.subset=9", "sft.subset_rule=reward_model"], r"set sft\.reward_model=PATH_OR_HUB_ID"),
    ],
)
def test_settings_of_data_that_cannot_work_are_refused(words: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        config_of(*words)


def composed(*words: str) -> list[Config]:
    spelled = compose.with_data_path(words)
    spelled = [word if word.startswith("-") else compose.normalise(word) for word in spelled]
    spelled = compose.debug_last(compose.with_model_group(spelled))
    spelled.sort(key=lambda word: word not in ("-m", "--multirun"))
    return [job.config for job in compose.expand(main._parse(spelled))]


def test_a_path_alone_is_a_file_of_one_s_own() -> None:
    (config,) = composed("stage=sft", "data.path=mine.jsonl")
    assert (config.data.source, config.data.path) == (DataSourceName.jsonl, "mine.jsonl")
    (config,) = composed("data=missing.jsonl")
    assert (config.data.source, config.data.path) == (DataSourceName.jsonl, "missing.jsonl")
    (config,) = composed("data=alpaca", "data.path=a.json")
    assert config.data.source == DataSourceName.alpaca


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=sandbox", "data.path=mine.jsonl"], r"data\.path is read by nothing here: data=sandbox .*data=FILE"),
        (["data.max_rows=5"], r"data\.max_rows"),
        (["data.quality.duplicates=true"], r"data\.quality\.duplicates"),
        (["data=mine.jsonl", "data.sandbox.world_seed=3"], r"data\.sandbox\.world_seed .*data=sandbox"),
        (["judge.llm.parallel=3"], r"judge\.llm\.parallel .*add llm to judge\.names"),
        (["rollout.vllm.url=http://x"], r"rollout\.vllm\.url .*rollout=vllm"),
        (["ppo.advantage=rloo", "ppo.samples_per_prompt=2", "ppo.gae_lambda=0.9"], r"ppo\.gae_lambda .*gae"),
        (["ppo.value_coef=0.5"], r"ppo\.value_coef .*value_head=shared"),
        (["ppo.kl.horizon=5"], r"ppo\.kl\.horizon .*ppo\.kl\.target"),
        (["ppo.ptx.per_episode=8"], r"ppo\.ptx\.per_episode .*ppo\.ptx\.coef"),
        (["sft.reward_model=x/y"], r"sft\.reward_model .*select_by"),
        (["model.lora.alpha=3"], r"model\.lora\.alpha .*model\.lora\.r"),
        (["-m", "ppo.kl.coef=0,1", "ppo.kl.horizon=5"], r"ppo\.kl\.horizon"),
    ],
)
def test_a_key_that_nothing_reads_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        composed(*words)


def test_a_key_that_one_job_of_a_sweep_reads_is_read_and_null_is_no_value() -> None:
    assert len(composed("-m", "ppo.ptx.coef=0,27.8", "ppo.ptx.per_episode=8")) == 2
    assert composed("data.path=null", "data=sandbox")
    assert composed("stage=self_instruct", "data=mine.jsonl", "data.sandbox.world_seed=3")


def test_every_rule_names_keys_that_there_are() -> None:
    for rule in unread._RULES:
        for node in rule.keys:
            assert node in all_keys() or node in all_nodes() or node in mappings(), node


def test_hydra_s_own_names_for_configs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--config-dir"):
        main._main(["--config-name", "foo"])
