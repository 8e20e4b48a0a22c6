"""The four prompts: for new instructions, for their kind, and for instances, input first or answer first.

Each is plain text that a base model can go on with and a chat model can follow. What a completion must be cut at is
beside the prompt it belongs to; `rlhf.self_instruct.parse` reads the completions.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlhf.self_instruct.records import SeedTask

CLASSIFY_STOP = ["\n"]
INSTANCES_STOP = ["\nTask:"]
_LONGEST_EXAMPLE = 1200  # characters: a seed with long texts would fill a prompt on its own


def propose(instructions: Sequence[str], *, count: int, continues: bool) -> str:
    """Asks for `count` instructions unlike those given, as a list that goes on.

    continues: end with the number of the next one, where a model goes on; else with a request, which it answers.
    """
    first, last = len(instructions) + 1, len(instructions) + count
    listed = "".join(f"{number}. {_one_line(text)}\n" for number, text in enumerate(instructions, 1))
    opening = (
        "A numbered list of instructions that people give to an assistant which reads and writes text. No two of them "
        f"ask for the same thing, and each makes sense by itself.\n\n{listed}"
    )
    if continues:
        return f"{opening}{first}."
    return f"{opening}\nWrite instructions {first} to {last} of this list, numbered, one a line, and nothing else."


def propose_stop(instructions: int, count: int) -> list[str]:
    return [f"\n{instructions + count + 1}."]


def classify(instruction: str, examples: Sequence[SeedTask]) -> str:
    """Asks whether the instruction's answer is a choice from a small fixed set."""
    shown = "".join(
        f"Task: {_one_line(task.instruction)}\nFixed set of answers: {'Yes' if task.is_classification else 'No'}\n\n"
        for task in examples
    )
    return (
        "For some tasks the answer is one of a few fixed choices, such as positive or negative. Other tasks are "
        "answered in free words. Say for each task whether it has a fixed set of answers: Yes or No.\n\n"
        f"{shown}Task: {_one_line(instruction)}\nFixed set of answers:"
    )


def input_first(instruction: str, examples: Sequence[SeedTask]) -> str:
    """Asks for instances of an instruction that is answered freely."""
    shown = "".join(f"Task: {_one_line(task.instruction)}\n{_examples(task)}\n" for task in examples)
    return (
        "Examples of how each task is used and rightly done. A task that is to be applied to something has it under "
        "Input; where the task says everything by itself there is no Input and one Output.\n\n"
        f"{shown}Task: {_one_line(instruction)}\nExample 1\n"
    )


def output_first(instruction: str, examples: Sequence[SeedTask]) -> str:
    """Asks for instances of a classification: each answer, then an input it is right for.

    A model that writes the input first favours one answer (the paper's section 2.2).
    """
    shown = "".join(f"Task: {_one_line(task.instruction)}\n{_answers(task)}\n" for task in examples)
    return (
        "Each task has a few possible answers. For every one of them, first the answer and then an input for which it "
        f"is the right one.\n\n{shown}Task: {_one_line(instruction)}\nAnswer:"
    )


def short_enough(task: SeedTask) -> bool:
    """Whether a seed task with its instances is short enough to be an example in a prompt."""
    return len(_examples(task)) <= _LONGEST_EXAMPLE


def _examples(task: SeedTask) -> str:
    lines = []
    for number, instance in enumerate(task.instances, 1):
        given = f"Input: {instance.input}\n" if instance.input else ""
        lines.append(f"Example {number}\n{given}Output: {instance.output}\n")
    return "".join(lines)


def _answers(task: SeedTask) -> str:
    lines = []
    for instance in task.instances:
        given = f"Input: {instance.input}\n" if instance.input else ""
        lines.append(f"Answer: {instance.output}\n{given}")
    return "".join(lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())
