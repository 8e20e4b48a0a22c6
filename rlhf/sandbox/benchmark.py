"""Multiple choice in the prose of the pretraining corpus: what a base model knows and can do before any instruction.

Facts of the world, sums and opposites are those that the corpus states. Passages, lists and the sentences that an item
opens with are drawn anew, from a seed that no document uses, so that one is met again by chance alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from rlhf.data.records import MultipleChoice
from rlhf.sandbox import world as w
from rlhf.sandbox.corpus import IN_OTHER_WORDS
from rlhf.sandbox.tasks import CATEGORIES
from rlhf.sandbox.world import World

ITEMS_PER_TASK = 100
OPTIONS = 4


def benchmark(world: World, per_task: int = ITEMS_PER_TASK) -> list[MultipleChoice]:
    """`per_task` different items of each task, tasks in turn; the same for every seed but the world's."""
    rng = random.Random(f"benchmark:{world.seed}")
    by_task = [_different(make, task, rng, world, per_task) for task, make in TASKS.items()]
    return [item for items in zip(*by_task, strict=True) for item in items]


Made = tuple[str, str, list[str]]  # context, right option, wrong options; options begin with their space


def _different(
    make: Callable[[random.Random, World], Made], task: str, rng: random.Random, world: World, count: int
) -> list[MultipleChoice]:
    items: dict[str, MultipleChoice] = {}
    while len(items) < count:
        context, right, wrong = make(rng, world)
        options = [right, *wrong]
        assert len(set(options)) == OPTIONS, options
        rng.shuffle(options)
        items.setdefault(context, MultipleChoice(context, tuple(options), options.index(right), task))
    return list(items.values())


def _choice(opening: Sequence[str], asked: str, right: str, wrong: Sequence[str]) -> Made:
    """An item that ends its sentence with one word or more; the wrong ones are the first three that differ."""
    others = [word for word in dict.fromkeys(wrong) if word != right][: OPTIONS - 1]
    return " ".join([*opening, asked]), f" {right}.", [f" {word}." for word in others]


def _shuffled(rng: random.Random, words: Sequence[str]) -> list[str]:
    return rng.sample(list(words), len(words))


def _capital(rng: random.Random, world: World) -> Made:
    asked, *told = rng.sample(list(world.capitals), rng.randint(1, 3))
    opening = [f"The capital of {country} is {world.capitals[country]}." for country in told]
    form = rng.choice(("The capital of {} is", "In {} the capital is"))
    # Cities just named come first among the wrong ones: copying is no answer.
    wrong = [*(world.capitals[country] for country in told), *_shuffled(rng, w.CITIES)]
    return _choice(opening, form.format(asked), world.capitals[asked], wrong)


_ANIMAL_FORMS = ("A {} says", "A {} eats", "A {} lives in")


def _animal(rng: random.Random, world: World) -> Made:
    asked, *told = rng.sample(list(w.ANIMALS), rng.randint(1, 3))
    fact = rng.randrange(len(_ANIMAL_FORMS))
    opening = [f"{_ANIMAL_FORMS[fact].format(animal)} {w.ANIMALS[animal][fact]}." for animal in told]
    known = {animal: str(facts[fact]) for animal, facts in w.ANIMALS.items()}
    wrong = [*(known[animal] for animal in told), *_shuffled(rng, list(known.values()))]
    return _choice(opening, _ANIMAL_FORMS[fact].format(asked), known[asked], wrong)


def _opposite(rng: random.Random, world: World) -> Made:
    (asked, right), *told = (rng.sample(pair, 2) for pair in rng.sample(w.OPPOSITES, rng.randint(1, 3)))
    opening = [f"The opposite of {a} is {b}." for a, b in told]
    form = rng.choice(("The opposite of {} is", "What is not {} is"))
    words = [word for pair in w.OPPOSITES for word in pair if word != asked]
    return _choice(opening, form.format(asked), right, [*(b for _, b in told), *_shuffled(rng, words)])


def _sum(rng: random.Random, world: World) -> Made:
    left, right = rng.randint(0, 9), rng.randint(0, 9)
    sign, word = ("+", "plus") if rng.random() < 0.7 else ("-", "minus")
    if sign == "-":
        left, right = max(left, right), min(left, right)
    total = left + right if sign == "+" else left - right
    form = rng.choice(
        (
            f"{left} {sign} {right} =",
            f"{left} {sign} {right} is",
            f"How much {left} {sign} {right} is, we know: it is",
            f"{left} {word} {right} is",
        )
    )
    near = [str(total + step) for step in (-3, -2, -1, 1, 2, 3) if 0 <= total + step <= 18]
    return _choice([], form, str(total), _shuffled(rng, near))


def _reading(rng: random.Random, world: World) -> Made:
    """Two people; where both have what is asked for, the other's is among the wrong options."""
    persons, passage = w.make_passage(rng, 2, rng.randint(2, 3))
    askable = [(person, a) for person in persons for a in IN_OTHER_WORDS if a != "thing" and getattr(person, a)]
    if not askable:
        return _reading(rng, world)
    person, attribute = rng.choice(askable)
    others = [getattr(other, attribute) for other in persons if other is not person and getattr(other, attribute)]
    values = {"city": w.CITIES, "job": w.JOBS, "food": w.FOODS, "pet": tuple(w.ANIMALS)}[attribute]
    asked = f"{IN_OTHER_WORDS[attribute].format(person.name)} is"
    return _choice([passage], asked, getattr(person, attribute), [*others, *_shuffled(rng, values)])


def _list(rng: random.Random) -> tuple[list[str], str]:
    words = rng.sample(w.WORDS_TO_EDIT, 4)  # one list of three in two is in the corpus; of four, few
    return words, f"{rng.choice(('A list', 'Words', 'Here is a list', 'List'))}: {', '.join(words)}."


def _reordered(rng: random.Random, forms: Sequence[str], order: Callable[[list[str]], list[str]]) -> Made:
    """The right order, the one the list came in, and others: all of the same words."""
    words, said = _list(rng)
    right = order(words)
    if right == words:
        return _reordered(rng, forms, order)
    orders = [words, *(_shuffled(rng, words) for _ in range(20))]
    return _choice([said], rng.choice(forms), ", ".join(right), [", ".join(o) for o in orders])


def _sorting(rng: random.Random, world: World) -> Made:
    forms = ("From a to z:", "In order from a to z the words are", "Sorted from a to z it is")
    return _reordered(rng, forms, sorted)


def _reversing(rng: random.Random, world: World) -> Made:
    forms = ("Backwards:", "The same list backwards, last word first:", "To write it backwards is to write")
    return _reordered(rng, forms, lambda words: words[::-1])


def _replacing(rng: random.Random, world: World) -> Made:
    """The new word for the old; the wrong ones put it for another word, or leave the list as it was."""
    words, said = _list(rng)
    place = rng.randrange(len(words))
    new = rng.choice([word for word in w.WORDS_TO_EDIT if word not in words])
    replaced = [", ".join([*words[:i], new, *words[i + 1 :]]) for i in range(len(words))]
    forms = ("With {} for {}:", "With {} in place of {} the list is", "Put {} in place of {} and it is")
    asked = rng.choice(forms).format(new, words[place])
    return _choice([said], asked, replaced[place], [", ".join(words), *_shuffled(rng, replaced)])


def _review(rng: random.Random, world: World) -> Made:
    positive = rng.random() < 0.5
    same, other = (w.GOOD_WORDS, w.BAD_WORDS) if positive else (w.BAD_WORDS, w.GOOD_WORDS)
    label = "positive" if positive else "negative"
    first, right = rng.sample(same, 2)
    asked = f"{rng.choice(w.NAMES)} wrote a {label} review: The {rng.choice(w.REVIEWED)} was {first} and"
    return _choice([], asked, right, _shuffled(rng, other))


def _topic(rng: random.Random, world: World) -> Made:
    topics = ("animals", "food", "weather", "work")
    topic = rng.choice(topics)
    said = [w.make_topic_sentence(rng, topic) for _ in range(rng.randint(2, 3))]
    return _choice(said, rng.choice(("It is a text about", "The topic is")), topic, topics)


def _member(rng: random.Random, world: World) -> Made:
    category, *others = _shuffled(rng, list(CATEGORIES))
    count = rng.randint(2, 5)
    *told, right = rng.sample(CATEGORIES[category], count)
    asked = f"{w.NUMBERS[count].capitalize()} {category}: {', '.join(told)},"
    return _choice([], asked, right, [rng.choice(CATEGORIES[other]) for other in others])


TASKS: dict[str, Callable[[random.Random, World], Made]] = {
    "capitals": _capital,
    "animals": _animal,
    "opposites": _opposite,
    "sums": _sum,
    "reading": _reading,
    "sorting": _sorting,
    "reversing": _reversing,
    "replacing": _replacing,
    "reviews": _review,
    "topics": _topic,
    "members": _member,
}
