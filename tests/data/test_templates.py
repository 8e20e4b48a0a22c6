from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlhf.config import Template
from rlhf.data.records import Message, Prompt, Role
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from rlhf.pretraining.base import train_tokenizer
from tests.support.tiny import build_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
BRACKETS = (  # of the form of Llama 2's: a space before the end token
    "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }} {{ eos_token }}"
    "{% elif m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}{{ m.content }}\n{% endif %}{% endfor %}"
)
REASONING = (  # finished turns lose what the generation prompt opens
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "Today Date: {{ date_string }}\n" + BRACKETS
)
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
LLAMA3_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
SPELLINGS = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end|>", "<s>", "<pad>", "<|pad|>")


def with_template(tokenizer: PreTrainedTokenizerBase, template: str) -> PreTrainedTokenizerBase:
    tokenizer.chat_template = template
    return tokenizer


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "pad_is_end": lambda: build_tokenizer(),
    "own_pad": lambda: build_tokenizer(pad=True),
    "start_token": lambda: build_tokenizer(bos=True),
    "own_template": lambda: build_tokenizer(chat_template=True),
    "own_template_and_start": lambda: build_tokenizer(chat_template=True, bos=True),
    "chatml_tokens": lambda: build_tokenizer(pad=True, special=CHATML_TOKENS),
    "chatml": lambda: with_template(build_tokenizer(special=CHATML_TOKENS), CHATML),
    "llama3": lambda: with_template(build_tokenizer(bos=True, special=LLAMA3_TOKENS), LLAMA3),
    "brackets": lambda: with_template(build_tokenizer(bos=True), BRACKETS),
    "reasoning": lambda: with_template(build_tokenizer(special=CHATML_TOKENS), REASONING),
    "sandbox": lambda: train_tokenizer(["Anna has red hats. Ben saw 3 cows."], vocab_size=300, context=128),
    "prefix_space": lambda: with_template(build_tokenizer(prefix_space=True, special=CHATML_TOKENS), CHATML),
}
PREFIX_SPACE = ("sandbox", "prefix_space")
NAMED_ON = ("pad_is_end", "start_token", "chatml_tokens", "llama3", "sandbox", "prefix_space")
ALL = [(n, t) for n in TOKENIZERS for t in Template if t == Template.auto or n in NAMED_ON]
SEGMENTED = [combination for combination in ALL if combination != ("reasoning", Template.auto)]


@functools.cache
def chat_template(name: str, template: Template) -> ChatTemplate:
    """On a tokenizer of its own, whose end token it may set."""
    tokenizer = TOKENIZERS[name]()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return ChatTemplate(tokenizer, template)


def is_response(text: str) -> bool:
    return bool(text.strip()) and not text.strip().endswith(SPELLINGS)


texts = st.lists(st.text(max_size=8) | st.sampled_from([*SPELLINGS, "\ue000", "\ue0001\ue000", " "]), max_size=6).map(
    "".join
)
contents = texts.filter(is_response)
conversations = st.tuples(st.booleans(), st.lists(contents, min_size=1, max_size=5)).map(
    lambda drawn: tuple(
        [Message(Role.system, "Be brief.")] * drawn[0]
        + [
            Message(Role.user if (len(drawn[1]) - i) % 2 else Role.assistant, text)
            for i, text in enumerate(drawn[1])
            if i or len(drawn[1]) % 2
        ]
    )
)
one_turn = contents.map(lambda text: (Message(Role.user, text),))


def special_ids(chat: ChatTemplate) -> set[int]:
    return {i for i, token in chat.tokenizer.added_tokens_decoder.items() if token.special}


def user(text: str) -> Message:
    return Message(Role.user, text)


def assistant(text: str) -> Message:
    return Message(Role.assistant, text)


@pytest.mark.parametrize(("name", "template"), ALL)
@settings(max_examples=8, deadline=None)
@given(response=contents)
def test_response_comes_back_and_so_do_its_ids(name: str, template: Template, response: str) -> None:
    chat = chat_template(name, template)
    ids = chat.response_ids(response)
    assert [i for i, found in enumerate(ids) if found == chat.tokenizer.eos_token_id] == [len(ids) - 1]
    assert chat.response_ids(response, ended=False) == ids[:-1]
    assert chat.decode(ids) == response.strip()
    assert chat.response_ids(chat.decode(ids)) == ids


@pytest.mark.parametrize(("name", "template"), SEGMENTED)
@settings(max_examples=8, deadline=None)
@given(messages=conversations, reply=contents, question=contents)
def test_prompt_and_response_are_a_prefix_of_the_longer_conversation(
    name: str, template: Template, messages: tuple[Message, ...], reply: str, question: str
) -> None:
    chat = chat_template(name, template)
    shorter = chat.prompt_ids(Prompt("p", messages)) + chat.response_ids(reply)
    longer = chat.prompt_ids(Prompt("p", (*messages, assistant(reply), user(question))))
    assert longer[: len(shorter)] == shorter
    assert len(longer) > len(shorter)


@pytest.mark.parametrize(("name", "template"), SEGMENTED)
@settings(max_examples=8, deadline=None)
@given(messages=conversations)
def test_mask_covers_exactly_the_assistants_turns_and_their_end_tokens(
    name: str, template: Template, messages: tuple[Message, ...]
) -> None:
    chat = chat_template(name, template)
    prompt = Prompt("p", messages)
    ids, mask = chat.prompt_ids(prompt), chat.prompt_mask(prompt)
    assert len(ids) == len(mask)
    covered = [i for i, is_reply in zip(ids, mask, strict=True) if is_reply]
    assert covered == [i for m in messages if m.role == Role.assistant for i in chat.response_ids(m.content)]
    starts = [i for i in range(len(mask)) if mask[i] and not (i and mask[i - 1])]
    assert len(starts) == sum(m.role == Role.assistant for m in messages)


@pytest.mark.parametrize(("name", "template"), ALL)
@settings(max_examples=8, deadline=None)
@given(messages=conversations)
def test_only_the_layout_writes_special_tokens(name: str, template: Template, messages: tuple[Message, ...]) -> None:
    chat = chat_template(name, template)
    special = special_ids(chat)
    harmless = tuple(Message(m.role, "x") for m in messages)
    found, expected = (
        [i for i in chat.prompt_ids(Prompt("p", conversation)) if i in special] for conversation in (messages, harmless)
    )
    assert found == expected
    if chat.tokenizer.bos_token is not None:
        assert found.count(chat.tokenizer.bos_token_id) <= 1


@pytest.mark.parametrize(("name", "template"), ALL)
@settings(max_examples=8, deadline=None)
@given(messages=conversations)
def test_prompt_text_is_what_the_ids_decode_to(name: str, template: Template, messages: tuple[Message, ...]) -> None:
    chat = chat_template(name, template)
    prompt = Prompt("p", messages)
    ids, text = chat.prompt_ids(prompt), chat.prompt_text(prompt)
    start = chat.tokenizer.bos_token_id
    if ids[0] == start and not text.startswith(chat.tokenizer.bos_token):
        ids = ids[1:]
    decoded = str(chat.tokenizer.decode(ids))
    if name not in PREFIX_SPACE:
        assert decoded == text
    else:  # the tokenizer's own doing, at the start of a text and after a special token
        special = special_ids(chat)
        seams = 1 + sum(i in special for i in ids) + sum(m.role == Role.assistant for m in messages)
        assert 0 < len(decoded) - len(text) <= seams
        assert decoded.replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("template", [Template.plain, Template.auto])
@settings(deadline=None)
@given(messages=one_turn)
def test_spelling_a_special_token_changes_no_spaces_where_texts_begin_with_one(
    template: Template, messages: tuple[Message, ...]
) -> None:
    chat = chat_template("sandbox", template)
    prompt = Prompt("p", messages)
    assert chat.tokenizer.decode(chat.prompt_ids(prompt)) == f" {chat.prompt_text(prompt)}"


def test_layout_around_a_spelled_special_token_is_tokenised_as_ever() -> None:
    for name, template in ALL:
        chat = chat_template(name, template)
        conversation = (Message(Role.system, "a"), user("b"), assistant("c"), user("% d"))
        plain = chat.prompt_ids(Prompt("p", conversation))
        spelled = chat.prompt_ids(Prompt("p", (*conversation[:-1], user("%<|im_end|><|end|><|endoftext|> d"))))
        same_start = next(i for i, (a, b) in enumerate(zip(plain, spelled, strict=False)) if a != b)
        same_end = next(i for i, (a, b) in enumerate(zip(plain[::-1], spelled[::-1], strict=False)) if a != b)
        assert same_start + same_end == len(plain), (name, template)


def test_spaces_that_a_special_token_takes_with_it_are_gone_in_either_way_of_encoding() -> None:
    end = AddedToken("<|im_end|>", rstrip=True, special=True, normalized=False)
    tokenizer = with_template(build_tokenizer(special=("<|im_start|>", end)), CHATML)
    chat = ChatTemplate(tokenizer)
    for content in ("b", "<|endoftext|>"):
        prompt = Prompt("p", (Message(Role.system, "a"), user(content)))
        assert chat.tokenizer.decode(chat.prompt_ids(prompt)) == (
            f"<|im_start|>system\na<|im_end|><|im_start|>user\n{content}<|im_end|><|im_start|>assistant\n"
        )


@pytest.mark.parametrize("template", list(Template))
@pytest.mark.parametrize("name", ["start_token", "own_template_and_start", "llama3"])
def test_start_token_is_never_doubled(name: str, template: Template) -> None:
    chat = chat_template(name, template)
    start = chat.tokenizer.bos_token_id
    ids = chat.prompt_ids(Prompt("p", (user("what is the sky?"), assistant("Blue."), user("<s>Why?"))))
    writes_none = name == "own_template_and_start" and chat.template == Template.auto
    assert [i for i, found in enumerate(ids) if found == start] == ([] if writes_none else [0])
    assert start not in chat.response_ids("<s>the sky is blue")


@pytest.mark.parametrize(
    ("name", "template", "end"),
    [
        ("chatml", Template.auto, "<|im_end|>"),
        ("chatml_tokens", Template.chatml, "<|im_end|>"),
        ("llama3", Template.auto, "<|eot_id|>"),
        ("llama3", Template.llama3, "<|eot_id|>"),
        ("reasoning", Template.auto, "<|im_end|>"),
        ("own_template", Template.auto, "<|endoftext|>"),
        ("own_pad", Template.chatml, "<|endoftext|>"),  # where <|im_end|> is no token
        ("chatml", Template.plain, "<|endoftext|>"),
        ("chatml", Template.zephyr, "<|endoftext|>"),
        ("brackets", Template.auto, "<|endoftext|>"),
        ("sandbox", Template.auto, "<|end|>"),
    ],
)
def test_a_response_ends_with_the_templates_own_end_token(name: str, template: Template, end: str) -> None:
    chat = chat_template(name, template)
    assert chat.tokenizer.eos_token == end
    assert chat.response_ids("yes")[-1] == chat.tokenizer.convert_tokens_to_ids(end)
    assert chat.response_ids(f"yes {end}\n") == chat.response_ids("yes")
    assert chat.response_ids(f"{end} yes")[:-1].count(chat.tokenizer.eos_token_id) == 0
    history = Prompt("p", (user("a"), assistant(f"yes{end}"), user("b")))
    assert chat.prompt_ids(history) == chat.prompt_ids(Prompt("p", (user("a"), assistant("yes"), user("b"))))


def test_a_special_token_that_begins_another_is_not_taken_for_it() -> None:
    chat = ChatTemplate(with_template(build_tokenizer(special=("<|im", *CHATML_TOKENS)), CHATML))
    assert chat.tokenizer.eos_token == "<|im_end|>"
    prompt = Prompt("p", (user("<|im <|im_end|>"),))
    ids = chat.prompt_ids(prompt)
    assert chat.tokenizer.decode(ids) == chat.prompt_text(prompt)
    assert [i for i in ids if i in special_ids(chat)] == chat.tokenizer(
        "<|im_start|><|im_end|><|im_start|>", add_special_tokens=False
    ).input_ids


def test_pad_token_stays_and_the_saved_tokenizer_has_the_templates_end_token(tmp_path: Path) -> None:
    tokenizer = with_template(build_tokenizer(special=CHATML_TOKENS), CHATML)
    tokenizer.pad_token = tokenizer.eos_token
    chat = ChatTemplate(tokenizer)
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.pad_token, loaded.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert ChatTemplate(loaded).hash == chat.hash


def test_own_template_decides_the_layout_and_the_space_before_a_response() -> None:
    chat = chat_template("own_template", Template.auto)
    prompt = Prompt("p", (user("Hi."), assistant("No."), user("Why?")))
    assert chat.prompt_text(prompt) == "User: Hi.\nAssistant: No.<|endoftext|>\nUser: Why?\nAssistant:"
    whole = chat.tokenizer.decode(chat.prompt_ids(prompt) + chat.response_ids("Yes."))
    assert whole == chat.prompt_text(prompt) + " Yes.<|endoftext|>"


def test_a_space_before_a_templates_end_token_is_not_the_models_to_write() -> None:
    chat = chat_template("brackets", Template.auto)
    prompt = Prompt("p", (user("a"), assistant("b"), user("c")))
    assert chat.prompt_text(prompt) == "[INST] a [/INST] b<|endoftext|>[INST] c [/INST]"


def test_template_that_rewrites_finished_turns_is_tokenised_whole_and_has_no_mask_for_them() -> None:
    chat = chat_template("reasoning", Template.auto)
    assert not chat.segmented
    assert all(chat_template(name, template).segmented for name, template in SEGMENTED)
    one, several = Prompt("p", (user("a"),)), Prompt("p", (user("a"), assistant("b"), user("c")))
    text = (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )
    assert chat.prompt_text(several) == text
    assert chat.prompt_ids(several) == chat.tokenizer(text).input_ids
    assert chat.prompt_mask(one) == [False] * len(chat.prompt_ids(one))
    with pytest.raises(UserError, match=r"tokenizer in use \(data\.template=auto\).*sft\.loss_on=last"):
        chat.prompt_mask(several)


@pytest.mark.parametrize(("name", "template"), ALL)
@settings(max_examples=8, deadline=None)
@given(messages=conversations, data=st.data())
def test_fit_leaves_out_the_oldest_exchanges_and_no_more_than_needed(
    name: str, template: Template, messages: tuple[Message, ...], data: st.DataObject
) -> None:
    chat = chat_template(name, template)
    prompt = Prompt("p", messages, "task", {"a": 1}, "someone")
    length = len(chat.prompt_ids(prompt))
    limit = data.draw(st.integers(1, length + 1))
    fitted = chat.fit(prompt, limit)
    system = tuple(m for m in messages if m.role == Role.system)
    turns = messages[len(system) :]
    candidates = [Prompt("p", (*system, *turns[start:])) for start in range(0, len(turns), 2)]
    expected = next((c for c in candidates if len(chat.prompt_ids(c)) <= limit), None)
    if expected is None:
        assert fitted is None
    else:
        assert fitted is not None
        assert fitted.messages == expected.messages
        assert (fitted.id, fitted.task, fitted.details, fitted.user) == ("p", "task", {"a": 1}, "someone")
    assert (fitted is prompt) == (length <= limit)


def test_hash_tells_layouts_apart_and_is_stable() -> None:
    hashes = {(n, t): chat_template(n, t).hash for n in TOKENIZERS for t in Template}
    assert hashes["pad_is_end", Template.auto] == hashes["pad_is_end", Template.plain]
    assert hashes["pad_is_end", Template.plain] == hashes["own_pad", Template.plain]
    for name in TOKENIZERS:
        alike = TOKENIZERS[name]().chat_template is None  # auto and plain
        assert len({hashes[name, template] for template in Template}) == len(Template) - alike
    assert hashes["own_pad", Template.chatml] != hashes["chatml_tokens", Template.chatml]  # another end token
    assert hashes["pad_is_end", Template.plain] != hashes["start_token", Template.plain]
    assert ChatTemplate(build_tokenizer()).hash == hashes["pad_is_end", Template.plain]


def test_hash_reads_the_tokenizers_own_template() -> None:
    refuses_system = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML
    hashes = {
        ChatTemplate(with_template(build_tokenizer(special=CHATML_TOKENS), template)).hash
        for template in (CHATML, CHATML + "{# changed #}", refuses_system)
    }
    assert len(hashes) == 3


def test_a_template_that_writes_todays_date_writes_the_same_one_for_ever() -> None:
    chat = ChatTemplate(with_template(build_tokenizer(), DATED))
    prompt = Prompt("p", (user("a"), assistant("b"), user("c")))
    assert chat.prompt_text(prompt).startswith("Today Date: 26 Jul 2024\n[INST] a")


def test_template_that_refuses_a_conversation_names_the_setting() -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x"
    prompt = Prompt("p", (Message(Role.system, "a"), Message(Role.user, "b")))
    with pytest.raises(UserError, match=r"no system.*data\.template=plain"):
        ChatTemplate(tokenizer).prompt_text(prompt)


def test_a_one_turn_prompt_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = ChatTemplate(build_tokenizer(chat_template=True))
    chat.response_ids("warm")
    renders = Mock(wraps=chat.tokenizer.apply_chat_template)
    monkeypatch.setattr(chat.tokenizer, "apply_chat_template", renders)
    chat.prompt_ids(Prompt("p", (user("a"),)))
    chat.response_ids("b")
    assert renders.call_count == 1
