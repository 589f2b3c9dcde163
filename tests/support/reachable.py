"""Walks from some objects to every object of the package that they hold, however deep."""

from __future__ import annotations

import asyncio
import gc
from collections import OrderedDict, deque
from collections.abc import Iterator
from functools import partial
from types import BuiltinMethodType, CellType, CoroutineType, FrameType, FunctionType, MethodType, TracebackType

import httpx

THROUGH = (
    *(dict, list, tuple, set, frozenset, deque, OrderedDict, partial, BaseException),
    *(MethodType, BuiltinMethodType, CellType, CoroutineType, FrameType, TracebackType),
    *(asyncio.Task, httpx.Request, httpx.Response, httpx.Headers),
)
"""What belongs to others and may hold what is the package's: containers, code on its way, errors, messages."""


def is_ours(thing: object) -> bool:
    """Tell whether a thing is the package's own; its simulator is the other side."""
    module = type(thing).__module__
    return module.partition(".")[0] == "chatscope" and not module.startswith("chatscope.simulator")


def reachable(*roots: object) -> Iterator[object]:
    """Yield whatever can be reached through the package's objects, texts and bytes too, each once."""
    seen: dict[int, object] = {}  # the objects are kept, so that no id is used again
    waiting = list(roots)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen[id(thing)] = thing
        yield thing
        if isinstance(thing, FunctionType):
            waiting += thing.__closure__ or ()  # not its globals: those are the whole program
        elif is_ours(thing) or isinstance(thing, THROUGH):
            waiting += gc.get_referents(thing)
