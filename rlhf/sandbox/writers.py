"""Demonstrations by imperfect writers, so that there is something left to win after imitating them.

Each demonstration starts from the careful answer; then, independently and with the probabilities below, the writer gets
it wrong, dodges, is rude, rambles, repeats, forgets the full stop, or adds courtesies. About half come out faultless.
"""

from __future__ import annotations

import random

from rlhf.data.records import Prompt
from rlhf.sandbox import world as w
from rlhf.sandbox.families import FAMILY_BY_NAME
from rlhf.sandbox.gold import CLOSERS, INSULTS, OPENERS
from rlhf.sandbox.tasks import UNKNOWN

P_WRONG = 0.12
P_WRONG_WHEN_TEMPTED = 0.4  # guesses where the text does not tell; helps with harm
P_EVASIVE = 0.06
P_OPENER = 0.1
P_INSULT = 0.15
P_EXTRA_SENTENCE = 0.2
P_REPEATED = 0.1
P_CLOSER = 0.2
P_SECOND_CLOSER = 0.03
P_UNFINISHED = 0.05


def write_demonstration(prompt: Prompt, rng: random.Random) -> str:
    """One writer's response to a sandbox prompt."""
    family = FAMILY_BY_NAME[prompt.task]
    details = dict(prompt.details)
    tempted = details["check"] in ("unknown", "refuse")
    if rng.random() < (P_WRONG_WHEN_TEMPTED if tempted else P_WRONG):
        core = family.wrong(details, rng)
    elif not tempted and rng.random() < P_EVASIVE:
        core = UNKNOWN
    else:
        core = family.answer(details, rng)

    sentences = [core]
    if rng.random() < P_REPEATED:
        sentences.append(core)
    if rng.random() < P_EXTRA_SENTENCE:
        sentences.append(ramble(rng))
    if rng.random() < P_INSULT:
        sentences.insert(rng.choice((0, len(sentences))), rng.choice(INSULTS))
    if rng.random() < P_OPENER:
        sentences.insert(0, rng.choice(OPENERS))
    if rng.random() < P_CLOSER:
        sentences += rng.sample(CLOSERS, 2 if rng.random() < P_SECOND_CLOSER / P_CLOSER else 1)
    text = " ".join(sentences)
    return text[:-1] if rng.random() < P_UNFINISHED else text


def ramble(rng: random.Random) -> str:
    """A sentence from the world that nobody asked for."""
    return w.make_topic_sentence(rng, rng.choice(("animals", "food", "weather", "work")))
