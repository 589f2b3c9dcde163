"""Files of prompts: JSON lines, and ShareGPT's array of conversations. They are large, so they are read as streams.

Here: the content of one request, and reading it from files. Not here: synthetic prompts, and sessions (`workload`).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TextIO

from chatscope._validation import check_messages
from chatscope.load.traces import MALFORMED, TraceRow, length_of, reason_of
from chatscope.protocol.messages import SentMessage

READ_CHARACTERS: Final = 1 << 20
"""Bytes of an array to read at once: far more than one conversation has."""

_BETWEEN_ITEMS: Final = ", \t\r\n"

_USERS: Final = frozenset({"human", "user"})
"""What ShareGPT's files call the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSource:
    """The content of one request, in short.

    `repetition` counts how often the file was read before. `session` is that of a trace; `turn` is the request's number
    in its session. `later` has the other turns of a recorded conversation (`is_conversation`).
    """

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    block_ids: tuple[int, ...] = ()
    messages: tuple[SentMessage, ...] = ()
    repetition: int = 0
    session: str | None = None
    turn: int = 0
    is_conversation: bool = False
    later: tuple[PromptSource, ...] = ()

    @classmethod
    def of_row(cls, row: TraceRow) -> PromptSource:
        """Return the content of the request of a trace's row."""
        return cls(
            prompt_tokens=row.prompt_tokens,
            output_tokens=row.output_tokens,
            block_ids=row.block_ids,
            session=row.session,
        )


def read_prompts(path: Path) -> Iterator[PromptSource]:
    """Yield the prompts of a file.

    Raises:
        ValueError: a line is not a prompt; the message has its number.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:
        rows = _rows(file)
        for number in itertools.count(1):
            try:
                row = next(rows)
                source = _share_gpt(row) if "conversations" in row else _prompt(row)
            except StopIteration:
                return
            except MALFORMED as error:
                raise ValueError(f"{path}: prompt {number} is malformed: {reason_of(error)}") from error
            if source is not None:
                yield source


def _rows(file: TextIO) -> Iterator[Any]:
    """Yield the values of JSON lines, or of one array, as in ShareGPT's files."""
    text = file.read(READ_CHARACTERS).lstrip()
    if not text.startswith("["):
        file.seek(0)
        yield from (json.loads(line) for line in file if line.strip())
        return
    decoder, text = json.JSONDecoder(), text[1:]
    while True:
        text = text.lstrip(_BETWEEN_ITEMS)
        if text.startswith("]"):
            return
        try:
            item, end = decoder.raw_decode(text)
        except ValueError:
            more = file.read(READ_CHARACTERS)
            if not more:
                raise
            text += more
        else:
            text = text[end:]
            yield item


def _prompt(row: Mapping[str, Any]) -> PromptSource:
    messages = row.get("messages")
    if messages is None:
        if not {"prompt", "text_input"} & row.keys():
            raise ValueError("it has neither messages, nor prompt, nor text_input")
        text = row["prompt"] if "prompt" in row else row["text_input"]
        if not isinstance(text, str):
            raise ValueError("the prompt is not a text")
        messages = [{"role": "user", "content": text}]
    check_messages("model", messages)
    names = ("output_tokens", "output_length", "output_tokens_count")
    given = next((row[name] for name in names if row.get(name) is not None), None)
    return PromptSource(messages=tuple(messages), output_tokens=None if given is None else length_of(given))


def _share_gpt(row: Mapping[str, Any]) -> PromptSource | None:
    """Return the user's first turn of a conversation, with the later ones. Some files start with the model's turn."""
    turns = row["conversations"]
    if not turns or turns[0].get("from") not in _USERS:
        return None
    first, *later = (
        PromptSource(messages=({"role": "user", "content": turn["value"]},))
        for turn in turns
        if turn.get("from") in _USERS
    )
    return replace(first, is_conversation=True, later=tuple(later))
