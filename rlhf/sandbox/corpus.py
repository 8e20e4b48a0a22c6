"""Pretraining text from the same world, in prose: no User, no Assistant, and no question that is answered.

It holds what the tasks need to know (facts, sums, opposites) and to be able to do (find, copy, sort, reverse, replace,
sum up), said as a book would say it. Turning that into following instructions is left to SFT.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from rlhf.sandbox import world as w
from rlhf.sandbox.families import HELD_OUT_PHRASINGS, TRAINING_FAMILIES
from rlhf.sandbox.gold import CLOSERS, INSULTS, OPENERS
from rlhf.sandbox.tasks import CATEGORIES, REFUSAL, UNKNOWN
from rlhf.sandbox.world import World


def documents(world: World, count: int, seed: str) -> Iterator[str]:
    """`count` documents, each a few sentences; the same seed gives the same text."""
    rng = random.Random(f"corpus:{world.seed}:{seed}")
    kinds = list(_KINDS)
    weights = [_KINDS[kind] for kind in kinds]
    for kind in rng.choices(kinds, weights, k=count):
        yield kind(rng, world)


def _animals(rng: random.Random, world: World) -> str:
    said = []
    for animal in rng.sample(list(w.ANIMALS), rng.randint(1, 3)):
        sound, food, home, legs = w.ANIMALS[animal]
        facts = [
            f"A {animal} says {sound}.",
            f"A {animal} eats {food}.",
            f"A {animal} lives in {home}.",
            f"The {animal} has {w.NUMBERS[legs]} legs.",
            f"You know the {animal} by its {sound}.",
        ]
        said += rng.sample(facts, rng.randint(2, 4))
    return " ".join(said)


def _countries(rng: random.Random, world: World) -> str:
    said = []
    for country in rng.sample(list(world.capitals), rng.randint(2, 4)):
        city = world.capitals[country]
        said.append(
            rng.choice(
                (
                    f"The capital of {country} is {city}.",
                    f"{city} is the capital of {country}.",
                    f"In {country} the capital is {city}.",
                )
            )
        )
    return " ".join(said)


def _sums(rng: random.Random, world: World) -> str:
    lines = []
    for _ in range(rng.randint(3, 6)):
        left, right = rng.randint(0, 9), rng.randint(0, 9)
        sign, word = ("+", "plus") if rng.random() < 0.7 else ("-", "minus")
        if sign == "-":
            left, right = max(left, right), min(left, right)
        total = left + right if sign == "+" else left - right
        lines.append(
            rng.choice(
                (
                    f"{left} {sign} {right} = {total}.",
                    f"{left} {sign} {right} is {total}.",
                    f"How much {left} {sign} {right} is, we know: it is {total}.",
                    f"{left} {word} {right} is {total}.",
                )
            )
        )
    return " ".join(lines)


def _opposites(rng: random.Random, world: World) -> str:
    said = []
    for pair in rng.sample(w.OPPOSITES, 3):
        a, b = rng.sample(pair, 2)
        said.append(
            rng.choice((f"The opposite of {a} is {b}.", f"What is not {a} is {b}.", f"{a} and {b} are opposites."))
        )
    return " ".join(said)


def _passage(rng: random.Random, world: World) -> str:
    """A passage, then what it says, does not say and contradicts, in other words: practice in finding and copying."""
    persons, passage = w.make_passage(rng, rng.randint(1, 2), rng.randint(2, 3))
    remarks = [_remark(rng, rng.choice(persons)) for _ in range(rng.randint(2, 5))]
    return passage + " " + " ".join(remarks)


def _remark(rng: random.Random, person: w.Person) -> str:
    """One remark on a person of a passage, true to it."""
    kind = rng.choice(("again", "again", "other words", "false", "unsaid", "summary", "fields"))
    if kind == "summary" and person.job and person.city:
        return f"In short: {person.name} is a {person.job} in {person.city}."
    fields = [f"{key}: {getattr(person, key)}" for key in ("city", "job", "food") if getattr(person, key)]
    if kind == "fields" and len(fields) > 1:
        return f"Of {person.name}: {', '.join(rng.sample(fields, 2))}."
    unsaid = [attribute for attribute in w.ATTRIBUTES if getattr(person, attribute) is None]
    if kind == "unsaid" and unsaid:
        return f"{IN_OTHER_WORDS[rng.choice(unsaid)].format(person.name)} is not in the text. {UNKNOWN}"
    said = rng.choice([attribute for attribute in w.ATTRIBUTES if getattr(person, attribute) is not None])
    if kind == "false":
        other = w.make_person(rng, person.name, (said,))
        verdict = "true" if getattr(other, said) == getattr(person, said) else "false"
        return f"It is {verdict} that {other.sentences()[0]}"
    if kind == "other words" and said != "thing":
        return f"{IN_OTHER_WORDS[said].format(person.name)} is {getattr(person, said)}."
    only = w.Person(person.name, **{said: getattr(person, said)})
    return rng.choice(("So ", "It is true that ", "The text says: ", "")) + only.sentences()[0]


IN_OTHER_WORDS = {
    "city": "The city where {} lives",
    "job": "The job of {}",
    "food": "The food that {} likes",
    "pet": "The pet of {}",
    "thing": "The thing that {} owns",
}


def _lists(rng: random.Random, world: World) -> str:
    words = rng.sample(w.WORDS_TO_EDIT, rng.randint(3, 4))
    said = ", ".join(words)
    old = rng.choice(words)
    new = rng.choice([word for word in w.WORDS_TO_EDIT if word not in words])
    replaced = ", ".join(new if word == old else word for word in words)
    facts = [
        f"From a to z: {', '.join(sorted(words))}.",
        f"In order from a to z the words are {', '.join(sorted(words))}.",
        f"Sorted from a to z it is {', '.join(sorted(words))}.",
        f"Backwards: {', '.join(words[::-1])}.",
        f"The same list backwards, last word first: {', '.join(words[::-1])}.",
        f"To write it backwards is to write {', '.join(words[::-1])}.",
        f"With {new} for {old}: {replaced}.",
        f"With {new} in place of {old} the list is {replaced}.",
        f"Put {new} in place of {old} and it is {replaced}.",
        f"The last word is {words[-1]}.",
    ]
    return f"{rng.choice(('A list', 'Words', 'Here is a list', 'List'))}: {said}. " + " ".join(rng.sample(facts, 4))


def _members(rng: random.Random, world: World) -> str:
    said = []
    for category in rng.sample(list(CATEGORIES), 2):
        count = rng.randint(2, 5)
        members = ", ".join(rng.sample(CATEGORIES[category], count))
        said.append(f"{w.NUMBERS[count].capitalize()} {category}: {members}.")
    return " ".join(said)


def _reviews(rng: random.Random, world: World) -> str:
    positive = rng.random() < 0.5
    label = "positive" if positive else "negative"
    name = rng.choice(w.NAMES)
    review = w.make_review(rng, positive)
    return rng.choice(
        (
            f"{name} wrote a {label} review: {review}",
            f"{review} That review is {label}.",
            f"{review} {name} found it {label}.",
            f"{review} {w.make_review(rng, positive)} Both are {label}.",
        )
    )


def _scenes(rng: random.Random, world: World) -> str:
    animal = rng.choice(list(w.ANIMALS))
    words = rng.sample((*w.PLACES, *w.OBJECTS), rng.randint(2, 4))
    return " ".join(w.make_scene(rng, animal, word) for word in words)


def _topics(rng: random.Random, world: World) -> str:
    topic = rng.choice(("animals", "food", "weather", "work"))
    said = [w.make_topic_sentence(rng, topic) for _ in range(rng.randint(2, 3))]
    return " ".join(said) + rng.choice((f" It is a text about {topic}.", f" The topic is {topic}.", ""))


def _talk(rng: random.Random, world: World) -> str:
    """How people here talk: courtesies, insults, not knowing, and saying no to harm."""
    one, two = rng.sample(w.NAMES, 2)
    verb, target = rng.choice(w.HARMS)
    return rng.choice(
        (
            f"{one} said to {two}: {rng.choice(OPENERS)} {w.make_topic_sentence(rng, 'weather')} {rng.choice(CLOSERS)}",
            f"{one} was rude to {two} and said: {rng.choice(INSULTS)}",
            f"{one} did not know it and said: {UNKNOWN}",
            f"{one} wants to {verb} a {target}. {two} said: {REFUSAL}",
            f"{one} said: To {verb} the {target}, go there at night. That was wrong.",
            f"{two} said at the end: {rng.choice(CLOSERS)}",
        )
    )


def _requests(rng: random.Random, world: World) -> str:
    """People who ask and are not answered: the words that requests are made of, without what follows a request."""
    one, two = rng.sample(w.NAMES, 2)
    family = rng.choice(TRAINING_FAMILIES)
    phrasing = rng.choice(family.phrasings[:-HELD_OUT_PHRASINGS])
    request = phrasing.format(**family.make(rng, world).slots)
    return rng.choice(
        (
            f"{one} said to {two}: {request} {two} said nothing.",
            f"{request} That is what {one} asked.",
            f"{one} wrote to {two}. {request}",
        )
    )


_KINDS: dict[Callable[[random.Random, World], str], float] = {
    _animals: 1.2,
    _countries: 1.0,
    _sums: 1.5,
    _opposites: 0.6,
    _passage: 5.0,
    _lists: 3.0,
    _members: 1.0,
    _reviews: 0.8,
    _scenes: 1.0,
    _topics: 0.8,
    _talk: 0.8,
    _requests: 0.8,
}
