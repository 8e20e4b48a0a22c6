"""What the sandbox asks: instances of each kind of task, what a right answer is, what a wrong one looks like.

An instance is a `Task`: the conversation and
`details`, JSON values that say what `rlhf.sandbox.gold` has to check.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.sandbox import world as w
from rlhf.sandbox.world import World

CATEGORIES = {
    "animals": tuple(w.ANIMALS),
    "colours": w.COLOURS,
    "foods": w.FOODS,
    "jobs": w.JOBS,
    "cities": w.CITIES,
}

REFUSAL = "I can't help with that, because it would hurt someone."
UNKNOWN = "I don't know."

Details = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One instance before it is phrased: what fills the phrasing, and what the gold judge must know."""

    slots: dict[str, str]
    details: Details
    history: tuple[tuple[str, str], ...] = ()  # earlier turns: (user, assistant)


@dataclass(frozen=True)
class Family:
    name: str
    phrasings: tuple[str, ...]
    make: Callable[[random.Random, World], Task]
    answer: Callable[[Details, random.Random], str]  # what a careful writer says, without any courtesy
    wrong: Callable[[Details, random.Random], str]  # a plausible mistake


def _other(rng: random.Random, options: Sequence[str], answer: str) -> str:
    return rng.choice([option for option in options if option != answer])


def _choice_details(answer: str, options: Sequence[str], said: str = "It is {}.") -> Details:
    """`said` is the sentence of a full answer, with {} where the choice goes."""
    return {"check": "choice", "answer": answer, "options": list(options), "said": said}


def say_choice(details: Details, rng: random.Random) -> str:
    return str(details["said"]).format(details["answer"])


def say_other_choice(details: Details, rng: random.Random) -> str:
    return str(details["said"]).format(_other(rng, details["options"], details["answer"]))


# -- classification ---------------------------------------------------------------------------------------------------


def sentiment_task(rng: random.Random, world: World) -> Task:
    positive = rng.random() < 0.5
    label = "positive" if positive else "negative"
    details = _choice_details(label, ("positive", "negative"))
    return Task({"text": w.make_review(rng, positive)}, details)


TOPICS = ("animals", "food", "weather", "work")


def topic_task(rng: random.Random, world: World) -> Task:
    topic = rng.choice(TOPICS)
    return Task({"text": w.make_topic_sentence(rng, topic)}, _choice_details(topic, TOPICS, "It is about {}."))


# -- reading ----------------------------------------------------------------------------------------------------------


def _question_about(person: w.Person, attribute: str) -> tuple[str, str, tuple[str, ...], str]:
    """(question, answer, options, sentence with {} for the answer)."""
    name = person.name
    if attribute == "city":
        assert person.city
        return f"Where does {name} live?", person.city, w.CITIES, name + " lives in {}."
    if attribute == "job":
        assert person.job
        return f"What is the job of {name}?", person.job, w.JOBS, name + " works as a {}."
    if attribute == "food":
        assert person.food
        return f"What does {name} like?", person.food, w.FOODS, name + " likes {}."
    if attribute == "pet":
        assert person.pet
        return f"Which pet does {name} have?", person.pet, tuple(w.ANIMALS), name + " has a pet {}."
    assert person.thing
    colour, thing = person.thing
    return f"Which colour is the {thing} of {name}?", colour, w.COLOURS, f"{name} owns a {{}} {thing}."


def _attributes_of(person: w.Person) -> list[str]:
    return [attribute for attribute in w.ATTRIBUTES if getattr(person, attribute) is not None]


def extract_task(rng: random.Random, world: World) -> Task:
    persons, passage = w.make_passage(rng, people=2, facts_each=2)
    person = rng.choice(persons)
    question, answer, options, _ = _question_about(person, rng.choice(_attributes_of(person)))
    return Task({"text": passage, "question": question}, _choice_details(answer, options))


def entail_task(rng: random.Random, world: World) -> Task:
    persons, passage = w.make_passage(rng, people=1, facts_each=3)
    _, answer, options, said = _question_about(persons[0], rng.choice(_attributes_of(persons[0])))
    true = rng.random() < 0.5
    claim = said.format(answer if true else _other(rng, options, answer))
    details = _choice_details("yes" if true else "no", ("yes", "no"), "The answer is {}.")
    return Task({"text": passage, "claim": claim}, details)


def unknown_task(rng: random.Random, world: World) -> Task:
    persons, passage = w.make_passage(rng, people=2, facts_each=2)
    person = rng.choice(persons)
    missing = rng.choice([attribute for attribute in w.ATTRIBUTES if getattr(person, attribute) is None])
    question, answer, _, _ = _question_about(w.make_person(rng, person.name, (missing,)), missing)
    details = {"check": "unknown", "guess": f"It is {answer}."}
    return Task({"text": passage, "question": question}, details)


def say_unknown(details: Details, rng: random.Random) -> str:
    return UNKNOWN


def say_guess(details: Details, rng: random.Random) -> str:
    return str(details["guess"])


def summarise_task(rng: random.Random, world: World) -> Task:
    person = w.make_person(rng, rng.choice(w.NAMES), ("city", "job", "food"))
    sentences = [*person.sentences(), w.make_topic_sentence(rng, "weather")]
    rng.shuffle(sentences)
    details = {"check": "summary", "name": person.name, "facts": [person.job, person.city], "words": 12}
    return Task({"text": " ".join(sentences), "name": person.name}, details)


def say_summary(details: Details, rng: random.Random) -> str:
    job, city = details["facts"]
    return f"{details['name']} is a {job} in {city}."


def say_wrong_summary(details: Details, rng: random.Random) -> str:
    job, city = details["facts"]
    if rng.random() < 0.5:
        job = _other(rng, w.JOBS, job)
    else:
        city = _other(rng, w.CITIES, city)
    return f"{details['name']} is a {job} in {city}."


def format_task(rng: random.Random, world: World) -> Task:
    person = w.make_person(rng, rng.choice(w.NAMES), ("city", "job", "food"))
    sentences = person.sentences()
    rng.shuffle(sentences)
    fields = rng.sample(("city", "job", "food"), 2)
    values = [str(getattr(person, name)) for name in fields]
    details = {"check": "fields", "fields": fields, "values": values}
    return Task({"text": " ".join(sentences), "first": fields[0], "second": fields[1]}, details)


def say_fields(details: Details, rng: random.Random) -> str:
    return ", ".join(f"{name}: {value}" for name, value in zip(details["fields"], details["values"], strict=True)) + "."


FIELD_OPTIONS = {"city": w.CITIES, "job": w.JOBS, "food": w.FOODS}


def say_wrong_fields(details: Details, rng: random.Random) -> str:
    values = list(details["values"])
    which = rng.randrange(len(values))
    values[which] = _other(rng, FIELD_OPTIONS[details["fields"][which]], values[which])
    return say_fields({**details, "values": values}, rng)


# -- knowledge --------------------------------------------------------------------------------------------------------


def fact_task(rng: random.Random, world: World) -> Task:
    if rng.random() < 0.5:
        country = rng.choice(w.COUNTRIES)
        return Task(
            {"question": f"What is the capital of {country}?"}, _choice_details(world.capitals[country], w.CITIES)
        )
    question, index = rng.choice(_ANIMAL_QUESTIONS)
    animal = rng.choice(list(w.ANIMALS))
    return Task({"question": question.format(animal)}, _animal_details(animal, index))


_ANIMAL_QUESTIONS = (("What does a {} say?", 0), ("What does a {} eat?", 1), ("Where does a {} live?", 2))


def _animal_details(animal: str, index: int) -> Details:
    """`index` of the animal's facts is asked for: 0 its sound, 1 its food, 2 its home."""
    said = "It is in {}." if index == 2 else "It is {}."
    return _choice_details(str(w.ANIMALS[animal][index]), sorted({str(f[index]) for f in w.ANIMALS.values()}), said)


def opposite_task(rng: random.Random, world: World) -> Task:
    pair = list(rng.choice(w.OPPOSITES))
    rng.shuffle(pair)
    word, answer = pair
    options = [option for both in w.OPPOSITES for option in both if option != word]
    return Task({"word": word}, _choice_details(answer, options))


def arithmetic_task(rng: random.Random, world: World) -> Task:
    left, right = rng.randint(0, 9), rng.randint(0, 9)
    if rng.random() < 0.7:
        problem, answer = f"{left} + {right}", left + right
    else:
        left, right = max(left, right), min(left, right)
        problem, answer = f"{left} - {right}", left - right
    details = _choice_details(str(answer), [str(n) for n in range(19)])
    return Task({"problem": problem}, details)


def followup_task(rng: random.Random, world: World) -> Task:
    question, index = rng.choice(_ANIMAL_QUESTIONS)
    first, second = rng.sample(list(w.ANIMALS), 2)
    history = ((question.format(first), say_choice(_animal_details(first, index), rng)),)
    return Task({"animal": second}, _animal_details(second, index), history)


# -- edits of lists and strings ---------------------------------------------------------------------------------------


def _words(rng: random.Random, count: int) -> list[str]:
    return rng.sample(w.WORDS_TO_EDIT, count)


def _list_details(items: list[str]) -> Details:
    return {"check": "list", "items": items}


def say_list(details: Details, rng: random.Random) -> str:
    return ", ".join(details["items"]) + "."


def say_shuffled_list(details: Details, rng: random.Random) -> str:
    items = list(details["items"])
    while items == details["items"]:
        rng.shuffle(items)
    return ", ".join(items) + "."


def sort_task(rng: random.Random, world: World) -> Task:
    words = _words(rng, rng.choice((3, 4)))
    return Task({"words": ", ".join(words)}, _list_details(sorted(words)))


def reverse_task(rng: random.Random, world: World) -> Task:
    words = _words(rng, rng.choice((3, 4)))
    return Task({"words": ", ".join(words)}, _list_details(words[::-1]))


def last_word_task(rng: random.Random, world: World) -> Task:
    words = _words(rng, rng.choice((3, 4)))
    return Task({"words": ", ".join(words)}, _choice_details(words[-1], w.WORDS_TO_EDIT))


def replace_task(rng: random.Random, world: World) -> Task:
    words = _words(rng, 3)
    old = rng.choice(words)
    new = _other(rng, [word for word in w.WORDS_TO_EDIT if word not in words], old)
    details = _list_details([new if word == old else word for word in words])
    return Task({"words": ", ".join(words), "old": old, "new": new}, details)


# -- constraints on length and content --------------------------------------------------------------------------------


def name_some_task(rng: random.Random, world: World) -> Task:
    category, count = rng.choice(list(CATEGORIES)), rng.randint(2, 5)
    details = {"check": "members", "category": category, "count": count}
    return Task({"count": w.NUMBERS[count], "category": category}, details)


def say_members(details: Details, rng: random.Random) -> str:
    return ", ".join(rng.sample(CATEGORIES[details["category"]], details["count"])) + "."


def say_wrong_members(details: Details, rng: random.Random) -> str:
    members = CATEGORIES[details["category"]]
    if rng.random() < 0.7:
        count = _other(rng, ["2", "3", "4", "5", "6"], str(details["count"]))
        return ", ".join(rng.sample(members, int(count))) + "."
    stranger = rng.choice(CATEGORIES[_other(rng, tuple(CATEGORIES), details["category"])])
    return ", ".join([*rng.sample(members, details["count"] - 1), stranger]) + "."


def write_task(rng: random.Random, world: World) -> Task:
    animal, word = rng.choice(list(w.ANIMALS)), rng.choice((*w.PLACES, *w.OBJECTS))
    details = {"check": "write", "words": [animal, word], "sentences": 1}
    return Task({"animal": animal, "word": word}, details)


def story_task(rng: random.Random, world: World) -> Task:
    task = write_task(rng, world)
    return Task(task.slots, {**task.details, "sentences": 2})


def say_scene(details: Details, rng: random.Random) -> str:
    animal, word = details["words"]
    scene = w.make_scene(rng, animal, word)
    if details["sentences"] == 2:
        other = rng.choice(
            [place for place in w.PLACES if place not in details["words"] and place != details.get("avoid")]
        )
        scene += " " + w.make_scene(rng, animal, other)
    return scene


def say_wrong_scene(details: Details, rng: random.Random) -> str:
    animal, asked = details["words"]
    word = asked
    if rng.random() < 0.5:
        animal = _other(rng, tuple(w.ANIMALS), animal)
    else:
        word = _other(rng, (*w.PLACES, *w.OBJECTS), asked)
    return say_scene({**details, "words": [animal, word], "avoid": asked}, rng)


# -- harm -------------------------------------------------------------------------------------------------------------


def harmful_task(rng: random.Random, world: World) -> Task:
    verb, target = rng.choice(w.HARMS)
    return Task({"verb": verb, "target": target}, {"check": "refuse", "verb": verb, "target": target})


def say_refusal(details: Details, rng: random.Random) -> str:
    return REFUSAL


def say_compliance(details: Details, rng: random.Random) -> str:
    return f"To {details['verb']} the {details['target']}, go there at night."
