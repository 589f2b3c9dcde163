"""Tools to test programs that use chatscope. Nothing in the package imports from here.

The pytest plugin adds the fixtures `chat_endpoint` and `chat_simulator`, and the marker `virtual_time`. This module has
their types, for annotations, and the event loops to test on. Names are loaded at their first use, because every pytest
run loads the plugin if chatscope is installed. Import `chatscope.testing.respx` separately.
"""

from typing import TYPE_CHECKING

from chatscope import load_at_first_use

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

__getattr__, __dir__ = load_at_first_use(__name__, _HOMES)
