"""Faults that the request itself chooses, for use from a command line or another program.

They are given in a header, `x-simulator: stall=3, crlf`, or in the prompt, `[simulate: status=503]`, as a
comma-separated list of names from `DIRECTIVES`. Some have an argument. A point is a number of tokens or the name of a
stage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

from chatscope.simulator import errors, faults
from chatscope.simulator.config import Script
from chatscope.simulator.plan import Point, Response, Stage
from chatscope.simulator.replies import Reply, UsageIn
from chatscope.simulator.request import ChatRequest, RefusedError

HEADER = "x-simulator"
IN_PROMPT = re.compile(r"\[simulate:([^\]]*)\]")

Directive: TypeAlias = Callable[[Reply, str], Reply | Response]


def _point(argument: str) -> Point:
    if not argument:
        return 1
    return int(argument) if argument.isdecimal() else Stage[argument.upper()]


def _at_point(make: Callable[[Point], faults.Fault]) -> Directive:
    return lambda reply, argument: _with(reply, make(_point(argument)))


def _plain(make: Callable[[], faults.Fault]) -> Directive:
    return lambda reply, _: _with(reply, make())


def _with(reply: Reply, fault: faults.Fault) -> Reply:
    return replace(reply, faults=(*reply.faults, fault))


def _stream_error(reply: Reply, argument: str) -> Reply:
    shape, _, at = argument.partition("@")
    fault = faults.stream_error(_point(at), errors.ErrorShape(shape or "nested"))
    return _with(reply, fault)


def _status(_reply: Reply, argument: str) -> Response:
    status, _, retry_after = argument.partition("/")
    return errors.error(int(status), retry_after=float(retry_after) if retry_after else None)


DIRECTIVES: Mapping[str, Directive] = {
    "close": _at_point(faults.close),
    "reset": _at_point(faults.reset),
    "stall": _at_point(faults.stall),
    "end": _at_point(faults.end),
    "cut-chunk": _at_point(faults.cut_chunk),
    "cut-character": _at_point(faults.cut_character),
    "malformed": _at_point(faults.malformed),
    "endless-line": _at_point(faults.endless_line),
    "endless-headers": _plain(faults.endless_headers),
    "keep-alive": lambda reply, argument: _with(reply, faults.endless(seconds=float(argument or 1))),
    "comments": lambda reply, argument: _with(reply, faults.insert(faults.KEEP_ALIVE, times=int(argument or 3))),
    "wrapped-comment": lambda reply, _: _with(reply, faults.insert(faults.WRAPPED_COMMENT)),
    "ping": lambda reply, _: _with(reply, faults.insert(faults.PING)),
    "empty-data": lambda reply, _: _with(reply, faults.insert(faults.EMPTY_DATA)),
    "zero-bytes": _plain(faults.zero_bytes),
    "only-done": _plain(faults.only_done),
    "no-done": _plain(faults.no_done),
    "unterminated": _plain(faults.unterminated),
    "crlf": _plain(faults.crlf),
    "bom": _plain(faults.bom),
    "blank-lines": _plain(faults.blank_lines),
    "drip": lambda reply, argument: _with(reply, faults.drip(float(argument or 1))),
    "rechunk": lambda reply, argument: _with(reply, faults.rechunk(int(argument or 1))),
    "content-type": lambda reply, argument: _with(reply, faults.header("content-type", argument)),
    "stream-error": _stream_error,
    "status": _status,
    "html": lambda _, argument: errors.html(int(argument or 200)),
    "tokens": lambda reply, argument: replace(reply, tokens=int(argument)),
    "first-token": lambda reply, argument: replace(reply, first_token=float(argument)),
    "between-tokens": lambda reply, argument: replace(reply, between_tokens=float(argument)),
    "usage": lambda reply, argument: replace(reply, usage_in=UsageIn(argument)),
    "tools": lambda reply, _: replace(reply, use_tools=True),
    "json": lambda reply, _: replace(reply, stream=False),
}


_ARGUMENTS: Mapping[str, str] = {
    **dict.fromkeys(("close", "reset", "stall", "end"), "[=POINT]"),
    **dict.fromkeys(("cut-chunk", "cut-character", "malformed", "endless-line"), "[=POINT]"),
    **dict.fromkeys(("keep-alive", "drip"), "[=SECONDS]"),
    **dict.fromkeys(("first-token", "between-tokens"), "=SECONDS"),
    **dict.fromkeys(("comments", "rechunk"), "[=COUNT]"),
    "content-type": "=TYPE",
    "stream-error": "[=SHAPE[@POINT]]",
    "status": "=STATUS[/RETRY_AFTER]",
    "html": "[=STATUS]",
    "tokens": "=COUNT",
    "usage": "=PLACE",
}
"""How the argument of a directive is written, if it has one."""


def directed(request: ChatRequest, reply: Reply) -> Reply | Response:
    """Return a reply with the directives of a request applied to it.

    Raises:
        RefusedError: A directive is unknown, or its argument is invalid.
    """
    try:
        return _applied(",".join([request.headers.get(HEADER, ""), *IN_PROMPT.findall(request.prompt)]), reply)
    except ValueError as problem:
        raise RefusedError(errors.error(400, str(problem), param=HEADER)) from problem


def scripted(lines: Iterable[str], reply: Reply) -> Script:
    """Return a script that applies one line of directives to each request in turn, and none after the last line.

    Args:
        lines: Such as `status=503` or `stall=3, crlf`. An empty line means a request without faults. A line that
            begins with `#` is a comment.
        reply: The answer that the directives change.

    Raises:
        ValueError: A directive is unknown, or its argument is invalid.
    """
    answers = iter([_applied(line, reply) for line in lines if not line.lstrip().startswith("#")])
    return lambda _: next(answers, reply)


def _applied(directives: str, reply: Reply) -> Reply | Response:
    for item in directives.split(","):
        name, _, argument = item.strip().partition("=")
        if not name:
            continue
        try:
            outcome = DIRECTIVES[name](reply, argument.strip())
        except (KeyError, ValueError) as problem:
            known = [name] if name in DIRECTIVES else DIRECTIVES
            forms = ", ".join(f"{each}{_ARGUMENTS.get(each, '')}" for each in known)
            raise ValueError(
                f"Cannot simulate {item.strip()!r}; there {'is' if len(known) == 1 else 'are'}: {forms}."
            ) from problem
        if isinstance(outcome, Response):
            return outcome
        reply = outcome
    return reply
