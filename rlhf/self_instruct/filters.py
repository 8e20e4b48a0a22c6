"""What is dropped of what a model wrote, and why (the paper's section 2.2 and appendix)."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from rlhf.self_instruct.records import Instance

if TYPE_CHECKING:
    from rlhf.config import SelfInstructConfig

_PUNCTUATION = string.punctuation + "“”‘’«»–—…•¿¡。、，！？"


class Reason(Enum):
    """Why something was dropped; the value is what the terminal says."""

    # Of a whole completion
    nothing_proposed = "completion without an instruction"
    # Of an instruction
    cut_instruction = "instruction cut at self_instruct.instruction_tokens"
    too_short = "instruction of fewer words than self_instruct.min_words"
    too_long = "instruction of more words than self_instruct.max_words"
    punctuation = "instruction that starts with punctuation"
    program = 'instruction that starts with "write a program"'
    keyword = "instruction with a word of self_instruct.keywords"
    duplicate_instruction = "instruction that is there already"
    similar = "instruction with a ROUGE-L of self_instruct.max_similarity or more to another"
    no_room = "instruction that does not fit the model's context"
    no_instance = "instruction without a usable instance"
    # Of an instance
    cut_instance = "instance cut at self_instruct.instance_tokens"
    empty_output = "instance without an output"
    colon = "instance that ends with a colon, so unfinished"
    output_is_input = "instance whose output is its input"
    duplicate_instance = "instance that is there already"
    contradiction = "instance with the same input as another and a different output"
    surplus = "instance beyond self_instruct.max_instances"


def instruction_problem(text: str, config: SelfInstructConfig) -> Reason | None:
    """What is wrong with an instruction by itself; None: nothing."""
    words = len(text.split())
    if words < config.min_words:
        return Reason.too_short
    if words > config.max_words:
        return Reason.too_long
    if text[0] in _PUNCTUATION:
        return Reason.punctuation
    if re.match(r"write\s+a\s+program\b", text, re.I):
        return Reason.program
    if any(re.search(rf"\b{re.escape(keyword)}\b", text, re.I) for keyword in config.keywords):
        return Reason.keyword
    return None


def alike(text: str) -> str:
    """The same for texts that differ in case and spaces alone."""
    return " ".join(text.casefold().split())


def sift(
    instances: Sequence[Instance], *, finished: bool, max_instances: int
) -> tuple[list[Instance], list[tuple[Instance, Reason]]]:
    """The usable instances of one instruction, and the others with their reasons.

    finished: False where the completion was cut, and the last instance with it.
    """
    kept: list[Instance] = []
    dropped: list[tuple[Instance, Reason]] = []
    for place, instance in enumerate(instances):
        cut = not finished and place == len(instances) - 1
        problem = Reason.cut_instance if cut else _instance_problem(instance)
        if problem is None and instance in kept:
            problem = Reason.duplicate_instance
        if problem is None:
            kept.append(instance)
        else:
            dropped.append((instance, problem))
    # Outputs without an input may differ: there are many right ones to "write a poem".
    inputs = [instance.input for instance in kept if instance.input]
    contradicting = {given for given in inputs if inputs.count(given) > 1}
    dropped += [(instance, Reason.contradiction) for instance in kept if instance.input in contradicting]
    kept = [instance for instance in kept if instance.input not in contradicting]
    dropped += [(instance, Reason.surplus) for instance in kept[max_instances:]]
    return kept[:max_instances], dropped


def _instance_problem(instance: Instance) -> Reason | None:
    if not instance.output.strip():
        return Reason.empty_output
    if alike(instance.input) == alike(instance.output):
        return Reason.output_is_input
    if instance.input.endswith(":") or instance.output.endswith(":"):
        return Reason.colon
    return None
