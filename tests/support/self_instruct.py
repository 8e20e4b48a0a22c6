"""A writer whose completions are a function of the prompt and the seed, as a fair model's would look."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from rlhf.self_instruct.records import Completion, Instance, SeedTask

VERBS = ("Write", "Describe", "List", "Explain", "Compare", "Suggest", "Rank", "Translate", "Rewrite", "Summarise")
NOUNS = ("story", "recipe", "poem", "letter", "speech", "riddle", "menu", "plan", "joke", "song", "essay", "review")
TOPICS = ("rain", "horses", "trains", "winter", "bread", "chess", "rivers", "islands", "clocks", "gardens", "owls")
SEEDS = [
    SeedTask("Say if the review is good or bad.", True, (Instance("I liked it.", "good"), Instance("Awful.", "bad"))),
    SeedTask("Choose the language of this text.", True, (Instance("Guten Tag", "German"),)),
    SeedTask("Name a fruit that is red.", False, (Instance("", "An apple."),)),
    SeedTask("Turn these words around.", False, (Instance("a b", "b a"), Instance("c d", "d c"))),
    SeedTask("How many days has a week?", False, (Instance("", "Seven."),)),
]


def asked_for(prompt: str) -> str:
    """Which of the four prompts it is, and of which instruction."""
    if prompt.endswith("Fixed set of answers:"):
        return "kind"
    if prompt.endswith("Example 1\n"):
        return "input_first"
    return "output_first" if prompt.endswith("Answer:") else "propose"


def instruction_of(prompt: str) -> str:
    return re.findall(r"^Task: (.*)$", prompt, re.M)[-1]


def _fair(kind: str, prompt: str, rng: random.Random) -> Completion:
    if kind == "propose":
        number = int(re.findall(r"^(\d+)\.", prompt, re.M)[-1])
        items = [
            f"{rng.choice(VERBS)} a {rng.choice(NOUNS)} on {rng.choice(TOPICS)} and {rng.choice(TOPICS)}, please"
            if rng.random() < 0.8
            else rng.choice(("Draw an image of a cow.", "Do it.", "- what is this thing?", "Is this good or bad?"))
            for _ in range(8)
        ]
        text = f" {items[0]}\n" + "".join(f"{number + i}. {item}\n" for i, item in enumerate(items[1:], 1))
        return Completion(text, rng.random() < 0.9)
    if kind == "kind":
        return Completion(rng.choice((" Yes", " No", " no way")), True)
    if kind == "output_first":
        return Completion(f" left\nInput: {rng.choice(NOUNS)}\nAnswer: right\nInput: {rng.choice(TOPICS)}", True)
    return rng.choice(
        (
            Completion(f"Output: a {rng.choice(NOUNS)}", True),
            Completion("Input: x\nOutput: y\nExample 2\nInput: x\nOutput: z", True),
            Completion("Input: same\nOutput: same", True),
            Completion(f"Input: {rng.choice(TOPICS)}\nOutput: fine\nExample 2\nInput: w\nOutput: unfin", False),
            Completion("I would rather not.", True),
        )
    )


@dataclass
class FakeWriter:
    """`answers(kind, prompt, rng)` writes; it is stopped (KeyboardInterrupt) at call `stop_at`."""

    answers: Callable[[str, str, random.Random], Completion] = _fair
    stop_at: int | None = None
    continues: bool = True
    longest: int | None = None  # characters that fit
    calls: list[list[str]] = field(default_factory=list)

    def fits(self, prompt: str, max_tokens: int) -> bool:
        return self.longest is None or len(prompt) <= self.longest

    def complete(
        self, prompts: list[str], *, max_tokens: int, temperature: float, stop: list[str], seed: int, doing: str
    ) -> list[Completion]:
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(prompts)
        return [
            self.answers(asked_for(prompt), prompt, random.Random(f"{seed}:{place}:{prompt}"))
            for place, prompt in enumerate(prompts)
        ]
