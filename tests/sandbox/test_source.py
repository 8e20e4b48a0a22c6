"""What the sandbox writes: fixed by its seeds, splits that do not leak, a corpus that is not instructions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from rlhf.config import SandboxConfig
from rlhf.data.records import Prompt, Split
from rlhf.sandbox.families import FAMILIES, HELD_OUT_FAMILIES, HELD_OUT_PHRASINGS
from rlhf.sandbox.gold import gold_score
from rlhf.sandbox.source import SandboxSource

CONFIG = SandboxConfig(
    demonstrations=400, ranking_prompts=60, prompts=600, evaluation_prompts=380, pretraining_documents=300
)


def _texts(prompts: list[Prompt]) -> set[str]:
    return {" | ".join(message.content for message in prompt.messages) for prompt in prompts}


def _digest(source: SandboxSource) -> str:
    made = [asdict(d) for d in source.demonstrations(Split.train)]
    made += [asdict(p) for split in Split for p in source.prompts(split)]
    return hashlib.sha256(json.dumps([made, source.texts(Split.train)], default=str).encode()).hexdigest()


def test_same_seed_same_bytes_and_another_seed_other_bytes() -> None:
    assert _digest(SandboxSource(CONFIG, 0)) == _digest(SandboxSource(CONFIG, 0))
    assert _digest(SandboxSource(CONFIG, 0)) != _digest(SandboxSource(CONFIG, 1))


def test_a_dozen_families_with_five_phrasings_in_training() -> None:
    assert len(FAMILIES) >= 12
    for family in FAMILIES:
        assert len(set(family.phrasings)) - HELD_OUT_PHRASINGS >= 5, family.name


def test_training_sees_no_held_out_family_and_no_held_out_prompt() -> None:
    source = SandboxSource(CONFIG, 0)
    held_out = source.prompts(Split.evaluation)
    train = source.prompts(Split.train) + [d.prompt for d in source.demonstrations(Split.train)]
    assert {prompt.task for prompt in held_out} == {family.name for family in FAMILIES}
    assert not {prompt.task for prompt in train} & set(HELD_OUT_FAMILIES)
    assert not _texts(train) & _texts(held_out)


def test_all_seeds_answer_the_same_evaluation_prompts() -> None:
    assert SandboxSource(CONFIG, 0).prompts(Split.evaluation) == SandboxSource(CONFIG, 1).prompts(Split.evaluation)


def test_prompt_ids_are_unique() -> None:
    source = SandboxSource(CONFIG, 0)
    ids = [prompt.id for split in Split for prompt in source.prompts(split)]
    ids += [d.prompt.id for split in Split for d in source.demonstrations(split)]
    assert len(ids) == len(set(ids))


def test_about_half_of_the_demonstrations_are_faultless() -> None:
    demonstrations = SandboxSource(SandboxConfig(), 0).demonstrations(Split.train)
    scores = [gold_score(d.prompt, d.response) for d in demonstrations]
    assert 0.4 < sum(score == 1 for score in scores) / len(scores) < 0.6


def test_rankings_have_k_completions_and_their_gold_scores() -> None:
    source = SandboxSource(CONFIG, 0)

    def sample(prompts, counts):
        return [["I don't know."] * (count - 1) + ["Yes."] for count in counts]

    rankings = source.rankings(Split.train, sample)
    assert len(rankings) == CONFIG.ranking_prompts
    assert {len(r.completions) for r in rankings} == set(range(4, 10))
    for ranking in rankings:
        assert len(ranking.ranks) == len(ranking.completions) == len(ranking.gold_scores)
        assert ranking.gold_scores[0] == gold_score(ranking.prompt, ranking.completions[0])


def test_the_corpus_is_prose() -> None:
    text = "\n".join(SandboxSource(CONFIG, 0).texts(Split.train))
    assert "User:" not in text
    assert "Assistant:" not in text
