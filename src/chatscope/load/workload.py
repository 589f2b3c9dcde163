"""The content of requests: synthetic prompts of a given length, or prompts from a file. Seeded; needs no tokenizer.

Here: lengths and messages. Not here: when requests are due (`schedule`), and how long a word is in tokens
(`calibration`).

A synthetic prompt starts with words that no other prompt has, in this run or another. A server's prefix cache then
finds nothing, as with real users. Prompts that share a prefix do so on request.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Final

from chatscope._validation import check_count, check_wait
from chatscope.load.prompts import PromptSource, read_prompts
from chatscope.protocol.messages import SentMessage

SALT_WORDS: Final = 8
"""Words of six bits each: two prompts of a run start alike once in 2**48."""

BLOCK_TOKENS: Final = 512
"""Tokens of a block in Mooncake's traces."""

_COMMON: Final = (
    "time year people way day man thing woman life child world school state family student group country problem "
    "hand part place case week company system program question work number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service "
    "friend father power hour game line end law car city"
)
_WORDS: Final = _COMMON.split()
"""Common words: one token each, with the space before it, in the tokenizers of current models."""


@dataclass(frozen=True, slots=True)
class Length:
    """A length in tokens: `mean`, and the standard deviation of a normal distribution that is cut off at 1."""

    mean: int
    deviation: float = 0.0

    def __post_init__(self) -> None:
        check_count(self.mean, "mean")
        check_wait(self.deviation, "deviation")

    def draw(self, random: Random) -> int:
        """Return one length."""
        return max(1, round(random.gauss(self.mean, self.deviation))) if self.deviation else self.mean


PROMPT_TOKENS: Final = Length(512)


@dataclass(frozen=True, slots=True)
class WordScale:
    """How many tokens the server counts for a prompt: `overhead + per_word * words`."""

    per_word: float = 1.0
    overhead: float = 0.0

    def words_for(self, tokens: int) -> int:
        """Return how many words make a prompt with a number of tokens: at least one."""
        return max(1, round((tokens - self.overhead) / self.per_word))


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The content of the requests.

    Args:
        prompt_tokens: the length of synthetic prompts.
        output_tokens: the length of the responses to request, unless a file of prompts has it; `None` lets the model
            decide.
        shared_prefix_tokens: the length of the prefix that all synthetic prompts share.
        prompts: a file of prompts instead of synthetic ones: JSON lines with `messages`, `prompt` or `text_input`, or
            ShareGPT's JSON. At its end it is read again; repeated prompts then start with unique words.
        turns: how many requests a session has. Each sends the whole conversation so far, with the model's responses.
        think_time: seconds between the end of a response and the next turn of its session.
        seed: equal seeds give equal lengths. A run sets it to its plan's.
        salt: determines the unique words. Equal salts give equal prompts. A run sets it to its plan's.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    prompt_tokens: Length = PROMPT_TOKENS
    output_tokens: Length | None = None
    shared_prefix_tokens: int = 0
    prompts: Path | None = None
    turns: int = 1
    think_time: float = 0.0
    seed: int = 0
    salt: str = ""

    def __post_init__(self) -> None:
        check_count(self.turns, "turns")
        check_wait(self.think_time, "think_time")
        if self.think_time and self.turns == 1:
            raise ValueError("think_time passes between the turns of a session: give turns above 1")
        if self.shared_prefix_tokens:
            check_count(self.shared_prefix_tokens, "shared_prefix_tokens")
        if self.prompts is not None and (self.shared_prefix_tokens or self.prompt_tokens != PROMPT_TOKENS):
            raise ValueError(
                "prompt_tokens and shared_prefix_tokens are for synthetic prompts: prompts is a file of them"
            )

    def sessions(self) -> Iterator[tuple[PromptSource, ...]]:
        """Yield the turns of each session, without end. Without `turns`, a session is one request.

        A ShareGPT conversation has its own turns, up to `turns`. The lines of other files follow one another.

        Raises:
            ValueError: the file has no prompt, or a line is not a prompt; the message has its number.
        """
        sources = self.prompt_sources()
        for first in sources:
            turns = [first, *first.later[: self.turns - 1]]
            if not first.is_conversation:
                turns += itertools.islice(sources, self.turns - 1)
            yield tuple(replace(source, turn=turn, later=()) for turn, source in enumerate(turns))

    def prompt_sources(self) -> Iterator[PromptSource]:
        """Yield the content of each prompt, one after another, without end.

        Raises:
            ValueError: the file has no prompt, or a line is not a prompt; the message has its number.
        """
        if self.prompts is None:
            yield from map(self._synthetic, itertools.count())
            return
        numbers = itertools.count()
        for repetition in itertools.count():
            is_empty = True
            for source in map(self._with_lengths, read_prompts(self.prompts), numbers):
                is_empty = False
                yield replace(source, repetition=repetition) if repetition else source
            if is_empty:
                raise ValueError(f"{self.prompts}: there is no prompt in it")

    def messages(self, index: int, source: PromptSource, scale: WordScale) -> list[SentMessage]:
        """Return the messages of a request. They are the same for equal salts, whichever worker sends them.

        Args:
            index: the request's number in the run.
            source: its content.
            scale: the length of words in tokens.
        """
        salt = _words(f"{self.salt}:salt:{index}", SALT_WORDS)
        if source.messages:
            return _salted(source.messages, salt) if source.repetition else list(source.messages)
        words = scale.words_for(source.prompt_tokens or 1)
        if source.session is not None:  # a recorded session: each prompt begins with the one before it
            return [{"role": "user", "content": " ".join(_words(f"{self.salt}:session:{source.session}", words))}]
        if source.turn:  # a later turn adds a message: the template and the shared prefix are in the first
            words = replace(scale, overhead=0.0).words_for(source.prompt_tokens or 1)
        if source.block_ids:
            start = [word for block in source.block_ids for word in self._block(block, scale)]
        else:
            shared = 0 if source.turn else min(round(self.shared_prefix_tokens / scale.per_word), words)
            start = _words(f"{self.salt}:shared", shared) + salt
        start = start[:words]
        return [{"role": "user", "content": " ".join(start + _words(f"{self.salt}:{index}", words - len(start)))}]

    def _synthetic(self, index: int) -> PromptSource:
        random = Random(f"{self.seed}:lengths:{index}")  # noqa: S311 - no secret
        prompt = self.prompt_tokens.draw(random)
        return PromptSource(
            prompt_tokens=prompt, output_tokens=None if self.output_tokens is None else self.output_tokens.draw(random)
        )

    def _with_lengths(self, source: PromptSource, index: int) -> PromptSource:
        """Return a prompt of a file, with a length of the response for each turn that has none."""
        if self.output_tokens is None:
            return source
        random, length = Random(f"{self.seed}:lengths:{index}"), self.output_tokens  # noqa: S311 - no secret
        first, *later = (
            turn if turn.output_tokens is not None else replace(turn, output_tokens=length.draw(random))
            for turn in (source, *source.later)
        )
        return replace(first, later=tuple(later))

    def _block(self, block: int, scale: WordScale) -> list[str]:
        return _words(f"{self.salt}:block:{block}", round(BLOCK_TOKENS / scale.per_word))


def _salted(messages: tuple[SentMessage, ...], salt: list[str]) -> list[SentMessage]:
    """Insert unique words before the first text."""
    salted: list[Any] = [dict(message) for message in messages]
    for message in salted:
        if isinstance(message.get("content"), str):
            message["content"] = f"{' '.join(salt)} {message['content']}"
            break
    return salted


def _words(seed: str, count: int) -> list[str]:
    return Random(seed).choices(_WORDS, k=count) if count > 0 else []  # noqa: S311 - no secret
