"""A file of one's own: each row is one of the common shapes, told by its columns.

    {"prompt": "...", "response": "..."}                                     a demonstration; `completion` is the same
    {"instruction": "...", "input": "...", "output": "..."}                  a demonstration; no `input` needed
    {"messages": [{"role": "user", "content": "..."}, ...]}                  a conversation; with `response`, its end
    {"conversations": [{"from": "human", "value": "..."}, ...]}              the same, as ShareGPT's; texts, as LIMA's
    {"prompt": "...", "chosen": "...", "rejected": "..."}                    a pair; conversations need no prompt
    {"prompt": "...", "completions": ["...", "..."], "ranks": [0, 1]}        a ranking; 0 is best, equal numbers tie
    {"prompt": "...", "completions": ["...", "..."], "scores": [0.5, 3]}     a ranking; the largest is best
    {"prompt": "..."}                                                        a prompt alone, for PPO
    {"text": "..."}                                                          a document, for pretraining and ptx

A prompt is the user's turn, or a list of {role, content}; `messages` that end with the user are a prompt too. Optional:
`system`, `id`, `task` (a family, for tables), `user` (who wrote the prompt), `margins` (each completion's worth on the
labeler's scale) and `gold_scores` (its noise-free worth) beside ranks. A row may be demonstration and ranking at once.
Rows in the published formats that have columns of their own are read as those. `rlhf.data.readers.own` has what rows
of one's own are called otherwise, and what is done with a column that judges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf.data.readers import (
    alpaca,
    dolly,
    fields,
    flan,
    gpt4_llm,
    hh_rlhf,
    instructgpt,
    lima,
    openassistant,
    own,
    safe_rlhf,
    self_instruct,
    sharegpt,
    shp,
    summarize_from_feedback,
    t0,
    ultrachat,
    ultrafeedback,
    webgpt,
)
from rlhf.data.readers.conversations import sharegpt_turns
from rlhf.data.records import BadRowError, Demonstration, Document, Message, Prompt, Ranking, Record, Role

ROLES = {
    **{role.value: role for role in Role},
    **{"User": Role.user, "Assistant": Role.assistant, "System": Role.system, "developer": Role.system},
    **{"human": Role.user, "gpt": Role.assistant, "model": Role.assistant, "chatgpt": Role.assistant},
}
# Columns that only one published format has, and who reads it.
_PUBLISHED: tuple[tuple[frozenset[str], Callable[[Mapping[str, Any]], Sequence[Record]]], ...] = (
    (frozenset({"instruction", "instances"}), self_instruct.read),
    (frozenset({"motivation_app", "instruction"}), self_instruct.read),
    (frozenset({"instruction", "context", "response"}), dolly.read),
    (frozenset({"instruction", "output"}), alpaca.read),
    (frozenset({"instruction", "completions"}), ultrafeedback.read),
    (frozenset({"inputs", "targets"}), flan.read),
    (frozenset({"inputs_pretokenized", "targets_pretokenized"}), t0.read),
    (frozenset({"user_input", "responses_and_scores"}), gpt4_llm.read),
    (frozenset({"history", "human_ref_A", "human_ref_B", "labels"}), shp.read),
    (frozenset({"info", "summaries", "choice"}), summarize_from_feedback.read),
    (frozenset({"question", "answer_0", "answer_1", "score_0", "score_1"}), webgpt.read),
    (frozenset({"prompt", "response_0", "response_1", "better_response_id"}), safe_rlhf.read),
    (frozenset({"model_type", "context", "ref_text", "sample"}), instructgpt.read),
    (frozenset({"id", "data"}), ultrachat.read),
)
_PLAIN = (alpaca.read, dolly.read, flan.read)  # published formats without a judgement of their own
_BESIDE = {
    "response",
    "completion",
    "completions",
    "system",
    "chosen",
    "rejected",
}  # what a conversation of one's own may have with it
_SHAPES = "prompt and response, messages, chosen and rejected, completions with ranks or scores, or text"


def read(row: Mapping[str, Any]) -> list[Record]:
    given = own.present(row)
    for columns, published in _PUBLISHED:
        if columns <= given.keys() and not {"chosen", "rejected"} <= given.keys():
            if published in _PLAIN:
                own.refuse_unread(own.canonical(given))
            return list(published(row))
    if isinstance(given.get("prompt"), Mapping):
        return list(openassistant.read(row))
    row = own.canonical(given)
    own.refuse_unread(row)
    if "conversations" in row and not _BESIDE & row.keys() and _is_shared(row["conversations"]):
        return list(lima.read(row) if isinstance(row["conversations"][0], str) else sharegpt.read(row))
    if "text" in row and not {"prompt", "messages", "role"} & row.keys():
        return [Document(fields.text(row, "text"))]
    if "chosen" in row and "rejected" in row:
        return _pair(row)
    prompt, ending = _conversation(row)
    response = next((key for key in ("response", "completion") if key in row), None)
    records: list[Record] = []
    if response is not None:
        records.append(Demonstration(_asked(prompt, ending), _response(row, response)))
    if "completions" in row:
        records.append(_ranking(_asked(prompt, ending), row))
    if not records:
        records.append(prompt if ending is None else Demonstration(prompt, ending))
    return records


# Columns that one of the shapes reads, whatever else is there.
_OWN = frozenset(
    (
        *("prompt", "response", "completion", "messages", "conversations", "conversation", "system", "id", "task"),
        *("user", "chosen", "rejected", "completions", "ranks", "scores", "margins", "gold_scores", "text", "question"),
        *("history", "answer", "answers", "instruction", "input", "response_1", "response_2", "preference_strength"),
        *("label", "kto_tag", "reward", "score", "rating", "helpfulness"),
    )
)


def unread(row: Mapping[str, Any]) -> list[str]:
    """Columns that hold something and that nothing reads."""
    given = own.present(row)
    published = next((columns for columns, _ in _PUBLISHED if columns <= given.keys()), frozenset[str]())
    return [name for name in given if name not in _OWN and name not in published]


def _asked(prompt: Prompt, ending: str | None) -> Prompt:
    if ending is not None:
        raise BadRowError("its conversation ends with the assistant's turn, and there is a response beside it")
    return prompt


def _is_shared(turns: Any) -> bool:
    """Whether it is a list as ShareGPT's or LIMA's, and not of {role, content}."""
    return isinstance(turns, list) and bool(turns) and not (isinstance(turns[0], Mapping) and "role" in turns[0])


def _response(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if isinstance(value, Mapping | list):
        value = _reply(value, key)
    response = fields.without_end_token(fields.response({key: value}, key))
    if not response:
        raise BadRowError(f"`{key}` is nothing but an end token")
    return response


def _reply(value: Any, column: str) -> str:
    """The one turn of the assistant that a turn, or a list of one, is."""
    turns = _turns([value] if isinstance(value, Mapping) else value, column)
    if len(turns) != 1 or turns[0].role != Role.assistant:
        raise BadRowError(f"`{column}` is not one turn of the assistant")
    return turns[0].content


def _conversation(row: Mapping[str, Any]) -> tuple[Prompt, str | None]:
    """The prompt, and the assistant's last turn when the conversation ends with one."""
    if "messages" in row or isinstance(row.get("prompt"), list):
        column = "messages" if "messages" in row else "prompt"
        turns = _turns(row[column], column)
    elif "conversations" in row:
        column = "conversations"
        shared = _is_shared(row[column])
        turns = sharegpt_turns(row) if shared else _turns(row[column], column)
    elif "prompt" in row:
        column, turns = "prompt", [Message(Role.user, own.without_markers(fields.text(row, "prompt")))]
    else:
        raise BadRowError(
            f"its columns are {', '.join(f'`{name}`' for name in row) or 'none'}, which are no shape that is known: "
            f"{_SHAPES}",
            "set data.columns.prompt=COLUMN and data.columns.response=COLUMN, or data.columns.text=COLUMN, to what "
            "yours are called",
        )
    if system := fields.optional_text(row, "system"):
        turns = [Message(Role.system, system), *turns]
    if turns[-1].role == Role.assistant:
        read = fields.demonstration(turns, column=column)
        return _named(read.prompt, row), read.response
    return _named(fields.prompt(turns, column=column), row), None


def _turns(turns: Any, column: str) -> list[Message]:
    """Of {role, content} or {from, value}; a blank system turn is left out."""
    if isinstance(turns, list) and turns and isinstance(turns[0], Mapping):
        keys = ("from", "value") if "from" in turns[0] and "role" not in turns[0] else ("role", "content")
        first = turns[0]
        if str(first.get(keys[0])).lower() == "system" and first.get(keys[1]) in (None, "", []):
            turns = turns[1:]
        _refuse_weight_0(turns, column)
        return fields.messages(turns, ROLES, column=column, role_key=keys[0], text_key=keys[1])
    return fields.messages(turns, ROLES, column=column, role_key="role", text_key="content")


def _refuse_weight_0(turns: Sequence[Any], column: str) -> None:
    place = next((i for i, turn in enumerate(turns) if isinstance(turn, Mapping) and turn.get("weight") == 0), None)
    if place is not None:
        raise BadRowError(
            f"`{column}[{place}]` has the weight 0, so it is not to be learned, and no loss here leaves one turn out",
            "cut the conversation before it, or leave such rows out with data.on_bad_row=skip",
        )


def _named(prompt: Prompt, row: Mapping[str, Any]) -> Prompt:
    told = {key: "" if row.get(key) is None else str(row[key]) for key in ("id", "task", "user")}
    return replace(prompt, id=told["id"], task=told["task"], user=told["user"])


def _pair(row: Mapping[str, Any]) -> list[Record]:
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, list) and isinstance(rejected, list):
        asked, replies = _pair_of_conversations(row)
    elif {"prompt", "messages", "conversations"} & row.keys():
        prompt, ending = _conversation(row)
        asked, replies = _asked(prompt, ending), [_response(row, key) for key in ("chosen", "rejected")]
    elif isinstance(chosen, str) and isinstance(rejected, str) and "Human:" not in chosen:
        beginning, *replies = own.common_beginning(chosen, rejected)
        asked = _named(Prompt("", (Message(Role.user, beginning),)), row)
    else:
        return list(hh_rlhf.read(row))
    ranked = fields.ranking(asked, replies, (0, 1))
    return [ranked, Demonstration(asked, ranked.completions[0])]


def _pair_of_conversations(row: Mapping[str, Any]) -> tuple[Prompt, list[str]]:
    """Both are whole conversations, or replies to the prompt beside them."""
    chosen, rejected = (_turns(row[key], key) for key in ("chosen", "rejected"))
    if "prompt" in row and len(chosen) == len(rejected) == 1:
        if {chosen[0].role, rejected[0].role} != {Role.assistant}:
            raise BadRowError("`chosen` and `rejected` are not the assistant's turns")
        return _asked(*_conversation(row)), [chosen[0].content, rejected[0].content]
    ends = [fields.demonstration(turns, column=key) for turns, key in ((chosen, "chosen"), (rejected, "rejected"))]
    if ends[0].prompt != ends[1].prompt:
        raise BadRowError("`chosen` and `rejected` differ before their last turn, so they answer different prompts")
    return _named(ends[0].prompt, row), [end.response for end in ends]


def _ranking(asked: Prompt, row: Mapping[str, Any]) -> Ranking:
    completions = row["completions"]
    if not isinstance(completions, list) or not all(isinstance(text, str) for text in completions):
        raise BadRowError("`completions` is not a list of texts")
    if "ranks" not in row and "scores" in row:
        scores = _numbers(row, "scores", len(completions))
        return fields.ranking(asked, completions, fields.ranks_of(scores), margins=scores)
    ranks = row.get("ranks")
    if not isinstance(ranks, list) or len(ranks) != len(completions) or not all(type(r) is int for r in ranks):
        raise BadRowError(
            f"`ranks` is not a list of {len(completions)} whole numbers, one a completion, and it has no `scores`"
        )
    numbers = {key: _numbers(row, key, len(completions)) for key in ("margins", "gold_scores") if row.get(key)}
    return fields.ranking(asked, completions, ranks, **numbers)


def _numbers(row: Mapping[str, Any], key: str, count: int) -> tuple[float, ...]:
    values = row[key]
    if not isinstance(values, list) or len(values) != count:
        raise BadRowError(f"`{key}` is not a list of {count} numbers, one a completion")
    return tuple(fields.number(value, f"{key}[{index}]") for index, value in enumerate(values))
