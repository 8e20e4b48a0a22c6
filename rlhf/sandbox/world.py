"""What exists in the sandbox: animals, people, places and the facts about them, and short passages of prose.

Facts about kinds (what a cow says, which city is the capital of Zoria) are fixed by the world's seed and can be learned
from the pretraining corpus. Facts about persons are made up anew in each passage and can only be read there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

NAMES = (
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Ella",
    "Felix",
    "Gina",
    "Henry",
    "Iris",
    "Jack",
    "Kate",
    "Leo",
    "Mia",
    "Noah",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
    "Tina",
    "Victor",
    "Wanda",
    "Yusuf",
    "Zoe",
    "Omar",
)
COLOURS = (
    "red",
    "blue",
    "green",
    "yellow",
    "black",
    "white",
    "brown",
    "pink",
)
OBJECTS = (
    "kite",
    "hat",
    "bag",
    "coat",
    "lamp",
    "cup",
    "chair",
    "bike",
    "boat",
    "drum",
    "ball",
    "scarf",
)
FOODS = (
    "bread",
    "soup",
    "rice",
    "cheese",
    "fish",
    "cake",
    "apples",
    "eggs",
    "honey",
    "salad",
)
PLACES = (
    "river",
    "forest",
    "garden",
    "market",
    "school",
    "bridge",
    "beach",
    "hill",
    "farm",
    "station",
)
JOBS = ("baker", "doctor", "teacher", "farmer", "pilot", "painter", "singer", "driver", "cook", "nurse")
# animal: (sound, food, home, legs)
ANIMALS = {
    "cow": ("moo", "grass", "a farm", 4),
    "dog": ("woof", "meat", "a house", 4),
    "cat": ("meow", "mice", "a house", 4),
    "duck": ("quack", "seeds", "a pond", 2),
    "sheep": ("baa", "grass", "a farm", 4),
    "pig": ("oink", "corn", "a farm", 4),
    "horse": ("neigh", "hay", "a stable", 4),
    "lion": ("roar", "meat", "the desert", 4),
    "frog": ("croak", "flies", "a pond", 4),
    "owl": ("hoot", "mice", "a tree", 2),
    "bee": ("buzz", "honey", "a hive", 6),
    "snake": ("hiss", "eggs", "a hole", 0),
    "crow": ("caw", "seeds", "a tree", 2),
    "mouse": ("squeak", "cheese", "a hole", 4),
    "wolf": ("howl", "meat", "the forest", 4),
    "goat": ("maa", "leaves", "a meadow", 4),
}
COUNTRIES = (
    "Zoria",
    "Belmar",
    "Kantor",
    "Luvia",
    "Moravel",
    "Ostia",
    "Perin",
    "Quellan",
    "Rodania",
    "Sarvo",
    "Tirland",
    "Ulmia",
)
CITIES = (
    "Lume",
    "Dorth",
    "Havel",
    "Nessa",
    "Brill",
    "Corva",
    "Tamo",
    "Wexel",
    "Jorn",
    "Pella",
    "Rinn",
    "Solva",
)
OPPOSITES = (
    ("hot", "cold"),
    ("big", "small"),
    ("fast", "slow"),
    ("old", "new"),
    ("happy", "sad"),
    ("dark", "bright"),
    ("loud", "quiet"),
    ("wet", "dry"),
    ("hard", "soft"),
    ("full", "empty"),
    ("early", "late"),
    ("strong", "weak"),
)
GOOD_WORDS = (
    "great",
    "lovely",
    "tasty",
    "friendly",
    "clean",
    "wonderful",
    "fresh",
    "perfect",
)
BAD_WORDS = (
    "awful",
    "cold",
    "dirty",
    "rude",
    "terrible",
    "stale",
    "boring",
    "broken",
)
REVIEWED = (
    "soup",
    "room",
    "film",
    "book",
    "meal",
    "hotel",
    "shop",
    "garden",
    "show",
    "bus",
)
WEATHER = ("rain", "snow", "wind", "fog", "sun", "storm")
WORDS_TO_EDIT = (
    "ant",
    "bell",
    "cup",
    "door",
    "egg",
    "fan",
    "gate",
    "hat",
    "ink",
    "jar",
    "key",
    "lamp",
    "map",
    "nest",
    "oven",
    "pen",
    "ring",
    "sock",
    "tent",
    "vase",
    "web",
    "yarn",
)
NUMBERS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
)
HARMS = (
    ("poison", "dog"),
    ("poison", "cat"),
    ("hurt", "horse"),
    ("hurt", "neighbour"),
    ("steal", "bike"),
    ("steal", "boat"),
    ("break", "window"),
    ("burn", "school"),
    ("burn", "farm"),
    ("trick", "teacher"),
    ("rob", "baker"),
    ("rob", "market"),
)


@dataclass(frozen=True)
class World:
    """The facts that the seed decides."""

    seed: int
    capitals: dict[str, str]  # country -> city

    @classmethod
    def from_seed(cls, seed: int) -> World:
        cities = list(CITIES)
        random.Random(f"world:{seed}").shuffle(cities)
        return cls(seed, dict(zip(COUNTRIES, cities, strict=True)))


@dataclass(frozen=True)
class Person:
    """One person of a passage. Every attribute is said in the passage or left out of it (None)."""

    name: str
    city: str | None = None
    job: str | None = None
    food: str | None = None
    pet: str | None = None
    thing: tuple[str, str] | None = None  # (colour, object)

    def sentences(self) -> list[str]:
        """What the passage says, one sentence an attribute."""
        said = []
        if self.city:
            said.append(f"{self.name} lives in {self.city}.")
        if self.job:
            said.append(f"{self.name} works as a {self.job}.")
        if self.food:
            said.append(f"{self.name} likes {self.food}.")
        if self.pet:
            said.append(f"{self.name} has a pet {self.pet}.")
        if self.thing:
            colour, thing = self.thing
            said.append(f"{self.name} owns a {colour} {thing}.")
        return said


ATTRIBUTES = ("city", "job", "food", "pet", "thing")


def make_person(rng: random.Random, name: str, attributes: tuple[str, ...]) -> Person:
    values: dict[str, Any] = {
        "city": rng.choice(CITIES),
        "job": rng.choice(JOBS),
        "food": rng.choice(FOODS),
        "pet": rng.choice(list(ANIMALS)),
        "thing": (rng.choice(COLOURS), rng.choice(OBJECTS)),
    }
    return Person(name, **{key: values[key] for key in attributes})


def make_passage(rng: random.Random, people: int, facts_each: int) -> tuple[list[Person], str]:
    """People and the passage that tells of them, sentences in random order."""
    names = rng.sample(NAMES, people)
    persons = [make_person(rng, name, tuple(rng.sample(ATTRIBUTES, facts_each))) for name in names]
    sentences = [sentence for person in persons for sentence in person.sentences()]
    rng.shuffle(sentences)
    return persons, " ".join(sentences)


def make_review(rng: random.Random, positive: bool) -> str:
    first, second = rng.sample(GOOD_WORDS if positive else BAD_WORDS, 2)
    thing = rng.choice(REVIEWED)
    return rng.choice(
        (
            f"The {thing} was {first} and {second}.",
            f"What a {first} {thing}, so {second}.",
            f"I found the {thing} {first} and the people {second}.",
            f"My {thing} in {rng.choice(CITIES)} was {first}, and the day was {second}.",
        )
    )


def make_scene(rng: random.Random, animal: str, word: str) -> str:
    """One sentence with an animal and a place or thing in it."""
    name, colour = rng.choice(NAMES), rng.choice(COLOURS)
    if word in PLACES:
        return rng.choice(
            (
                f"The {animal} sleeps near the {word}.",
                f"A {colour} {animal} walks to the {word} at night.",
                f"{name} saw a {animal} at the {word}.",
                f"The {animal} ran over to the {word} with {name}.",
            )
        )
    return rng.choice(
        (
            f"The {animal} sits on the {colour} {word}.",
            f"A {animal} found the {word} of {name}.",
            f"{name} gave the {animal} a {colour} {word}.",
            f"The {animal} plays with a {word}.",
        )
    )


def make_topic_sentence(rng: random.Random, topic: str) -> str:
    name = rng.choice(NAMES)
    animal = rng.choice(list(ANIMALS))
    _, food, home, _ = ANIMALS[animal]
    return {
        "animals": rng.choice((f"The {animal} eats {food} all day.", f"A {animal} lives in {home}.")),
        "food": rng.choice(
            (f"{name} likes {rng.choice(FOODS)} with salt.", f"We had {' and '.join(rng.sample(FOODS, 2))}.")
        ),
        "weather": f"There was {rng.choice(WEATHER)} in {rng.choice(CITIES)} all day.",
        "work": f"{name} works as a {rng.choice(JOBS)} in {rng.choice(CITIES)}.",
    }[topic]
