"""The steps of a scripted endpoint: responses, each with the expectations that its request must meet.

Here: comparing a request with a step, and describing the differences. Not here: the order of steps (`endpoint`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from difflib import ndiff
from pprint import pformat
from typing import Any, TypeAlias

from chatscope.simulator import Answer, ChatRequest, Fault, Plan, Reply, Response
from chatscope.simulator.request import SECRET_HEADERS

__all__ = ["Scripted", "Step", "UnexpectedRequestError", "describe", "explain", "rendered"]

# Columns that a value may fill in a message: a little more than the 80 of a terminal.
WIDTH = 100
# Characters of a request's body in a message: enough for a few turns, too few for images.
EXCERPT = 2000

Scripted: TypeAlias = str | Answer | Exception | Callable[[ChatRequest], str | Answer | Exception]
"""A scripted response: a text, anything that the simulator can send, an exception, or a function of the request."""


class UnexpectedRequestError(AssertionError):
    """A request that matches no step."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A response, and the expectations of its request. Fields without an expectation are not compared."""

    number: int
    """1 for the first step added."""
    response: Scripted
    fields: Mapping[str, Any]
    """Fields of the body; `None` means absent or null."""
    headers: Mapping[str, str]
    where: Callable[[ChatRequest], bool] | None

    def __str__(self) -> str:
        """Describe the step: its number, response and expectations."""
        expected = [f"{name}={_short(value)}" for name, value in self.fields.items()]
        if self.headers:
            expected.append(f"headers={sorted(self.headers)}")
        if self.where is not None:
            expected.append(f"where={_name(self.where)}")
        return f"step {self.number}, {describe(self.response)}" + (f", for {', '.join(expected)}" if expected else "")

    def differences(self, request: ChatRequest) -> list[str]:
        """Return the differences, one text each; an empty list if the request matches."""
        found = [
            _difference(name, expected, request.body.get(name))
            for name, expected in self.fields.items()
            if request.body.get(name) != expected
        ]
        for name, expected in self.headers.items():
            given = request.headers.get(name.lower())
            if given != expected:
                hidden = name.lower() in SECRET_HEADERS
                found.append(f"header {name}: differs" if hidden else _difference(f"header {name}", expected, given))
        if self.where is not None:
            try:
                if not self.where(request):
                    found.append(f"where: {_name(self.where)} returned false")
            except Exception as problem:  # noqa: BLE001 - an assertion also means no
                found.append(f"where: {_name(self.where)} raised {type(problem).__name__}: {problem}")
        return found


def describe(response: Scripted) -> str:
    """Describe a scripted response in a few words. For a `Reply`, only what differs from the default is shown."""
    match response:
        case Reply():
            given = {item.name: getattr(response, item.name) for item in dataclasses.fields(Reply)}
            default = Reply()
            named = (f"{name}={_short(value)}" for name, value in given.items() if value != getattr(default, name))
            return f"Reply({', '.join(named)})"
        case Fault():
            return f"fault {response.name!r}"
        case Response():
            return f"status {response.status}"
        case Plan():
            return f"plan of {len(response.steps)} steps"
        case str() | Exception():
            return _short(response)
        case _:
            return _name(response)


def explain(problem: Exception) -> str:
    """Say why a request got no response, for a message."""
    if isinstance(problem, UnexpectedRequestError):
        return str(problem)
    return f"The response could not be built: {type(problem).__name__}: {problem}"


def rendered(request: ChatRequest) -> str:
    """Format a request's body for a message."""
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
