"""The steps of a scripted endpoint: an answer each, and what the request that it is for has to look like.

Here: comparing a request with what was expected, and saying what is different. Not here: which step's turn it is
(`endpoint`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from difflib import ndiff
from pprint import pformat
from typing import Any, TypeAlias

from chatscope.simulator import Answer, ChatRequest, Fault, Plan, Reply, Response
from chatscope.simulator.request import SECRET_HEADERS

__all__ = ["Scripted", "Step", "UnexpectedRequestError", "described", "explained", "rendered"]

# Columns of a value in a message: a terminal's 80 and some.
WIDTH = 100
# Characters of a request's body in a message: a conversation of a few turns, and not the images in it.
EXCERPT = 2000

Scripted: TypeAlias = str | Answer | Exception | Callable[[ChatRequest], str | Answer | Exception]
"""What may be scripted: a text, the simulator's answers, an error of the transport, a function that says which."""


class UnexpectedRequestError(AssertionError):
    """A request came that no step is for."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Step:
    """An answer, and what it expects of its request. What is not named is not looked at."""

    number: int
    """1 for the first that was added."""
    answer: Scripted
    fields: Mapping[str, Any]
    """Fields of the body; None: absent, or null."""
    headers: Mapping[str, str]
    where: Callable[[ChatRequest], bool] | None

    def __str__(self) -> str:
        """Say what it answers to what."""
        expected = [f"{name}={_short(value)}" for name, value in self.fields.items()]
        if self.headers:
            expected.append(f"headers={sorted(self.headers)}")
        if self.where is not None:
            expected.append(f"where={_name(self.where)}")
        return f"step {self.number}, {described(self.answer)}" + (f", for {', '.join(expected)}" if expected else "")

    def differences(self, request: ChatRequest) -> list[str]:
        """Return what is not as expected, a text each; nothing if the request is the one."""
        found = [
            _difference(name, expected, request.body.get(name))
            for name, expected in self.fields.items()
            if request.body.get(name) != expected
        ]
        for name, expected in self.headers.items():
            given = request.headers.get(name.lower())
            if given != expected:
                hidden = name.lower() in SECRET_HEADERS
                found.append(f"header {name}: is another" if hidden else _difference(f"header {name}", expected, given))
        if self.where is not None:
            try:
                if not self.where(request):
                    found.append(f"where: {_name(self.where)} said no")
            except Exception as problem:  # noqa: BLE001 - an assertion is one way for it to say no
                found.append(f"where: {_name(self.where)} raised {type(problem).__name__}: {problem}")
        return found


def described(answer: Scripted) -> str:
    """Return an answer in a few words: what of it is not as usual."""
    match answer:
        case Reply():
            given = {item.name: getattr(answer, item.name) for item in dataclasses.fields(Reply)}
            usual = Reply()
            named = (f"{name}={_short(value)}" for name, value in given.items() if value != getattr(usual, name))
            return f"Reply({', '.join(named)})"
        case Fault():
            return f"fault {answer.name!r}"
        case Response():
            return f"status {answer.status}"
        case Plan():
            return f"plan of {len(answer.steps)} steps"
        case str() | Exception():
            return _short(answer)
        case _:
            return _name(answer)


def explained(problem: Exception) -> str:
    """Return what kept a request from being answered, for a message."""
    if isinstance(problem, UnexpectedRequestError):
        return str(problem)
    return f"An answer could not be made: {type(problem).__name__}: {problem}"


def rendered(request: ChatRequest) -> str:
    """Return a request's body for a message."""
    text = pformat(dict(request.body), width=WIDTH, sort_dicts=False)
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}... ({len(text)} characters)"


def _difference(name: str, expected: object, given: object) -> str:
    texts = [
        "nothing" if value is None else pformat(value, width=WIDTH, sort_dicts=False) for value in (expected, given)
    ]
    if sum(map(len, texts)) <= WIDTH:
        return f"{name}: expected {texts[0]}, got {texts[1]}"
    lines = ndiff(texts[0].splitlines(), texts[1].splitlines())
    return "\n".join([f"{name}: (- expected, + got)", *(f"  {line.rstrip()}" for line in lines)])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def _name(function: object) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
