"""Help for the tests of programs that use chatscope; nothing in the package itself imports from here.

The pytest plugin brings two fixtures, `chat_endpoint` and `chat_simulator`, and the marker `virtual_time`. Here are
their types, for annotations, and the event loops to test on. The names are loaded when one is first asked for: the
plugin is part of every pytest run where chatscope is installed. `chatscope.testing.respx` is imported by itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatscope.testing.endpoint import ChatEndpoint as ChatEndpoint
    from chatscope.testing.loops import LOOPS as LOOPS
    from chatscope.testing.received import ReceivedRequest as ReceivedRequest
    from chatscope.testing.simulating import ChatSimulator as ChatSimulator
    from chatscope.testing.steps import Scripted as Scripted
    from chatscope.testing.steps import UnexpectedRequestError as UnexpectedRequestError

_HOMES = {
    "LOOPS": "loops",
    "ChatEndpoint": "endpoint",
    "ChatSimulator": "simulating",
    "ReceivedRequest": "received",
    "Scripted": "steps",
    "UnexpectedRequestError": "steps",
}

__all__ = ["LOOPS", "ChatEndpoint", "ChatSimulator", "ReceivedRequest", "Scripted", "UnexpectedRequestError"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'chatscope.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"chatscope.testing.{_HOMES[name]}"), name)
    return value
