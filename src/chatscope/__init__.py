"""Chat completions in cancel scopes.

A public name is loaded at its first use (PEP 562), so a program that only imports the package or reads its version does
not load an HTTP library.
"""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from chatscope.version import __version__ as __version__

if TYPE_CHECKING:  # the same names for type checkers; tests/test_import.py keeps the two lists equal
    from chatscope import content as content
    from chatscope._client.client import ChatClient as ChatClient
    from chatscope._client.event_stream import EventStream as EventStream
    from chatscope._client.parameters import RequestParameters as RequestParameters
    from chatscope._client.stream import ChatStream as ChatStream
    from chatscope._client.stream import ParsedStream as ParsedStream
    from chatscope._client.timings import Timings as Timings
    from chatscope._client.tool_stream import RunEvent as RunEvent
    from chatscope._client.tool_stream import ToolStream as ToolStream
    from chatscope._conversation.loop import RunResult as RunResult
    from chatscope._conversation.loop import StepDone as StepDone
    from chatscope._conversation.loop import ToolResult as ToolResult
    from chatscope._limits.attempts import Attempt as Attempt
    from chatscope._limits.leased_pacer import LeasedPacer as LeasedPacer
    from chatscope._limits.leased_pacer import LimitSource as LimitSource
    from chatscope._limits.leases import Lease as Lease
    from chatscope._limits.leases import LeaseRequest as LeaseRequest
    from chatscope._limits.leases import LimitServer as LimitServer
    from chatscope._limits.limiter import Statistics as Statistics
    from chatscope._limits.pacer import Pacer as Pacer
    from chatscope._limits.retry import RetryPolicy as RetryPolicy
    from chatscope._limits.retry_decorators import retry_on_rate_limit as retry_on_rate_limit
    from chatscope._limits.retry_decorators import retry_on_transient as retry_on_transient
    from chatscope._limits.timeouts import Timeouts as Timeouts
    from chatscope._tasks.adapter import AsyncChatGPTAdapter as AsyncChatGPTAdapter
    from chatscope._tasks.base import AsyncBasePlatformAdapter as AsyncBasePlatformAdapter
    from chatscope._tasks.handle import ChatTask as ChatTask
    from chatscope._tasks.map import ResultStream as ResultStream
    from chatscope._tasks.models import Platform as Platform
    from chatscope._tasks.models import Result as Result
    from chatscope._tasks.models import Task as Task
    from chatscope._tasks.models import TaskConstraints as TaskConstraints
    from chatscope._tasks.models import TaskCounts as TaskCounts
    from chatscope._tasks.models import TaskId as TaskId
    from chatscope._tasks.models import TaskStatus as TaskStatus
    from chatscope._tasks.models import TaskType as TaskType
    from chatscope._tasks.step_stream import StepStream as StepStream
    from chatscope._tasks.text_stream import TextStream as TextStream
    from chatscope.errors import APIConnectionError as APIConnectionError
    from chatscope.errors import APIStatusError as APIStatusError
    from chatscope.errors import APITimeoutError as APITimeoutError
    from chatscope.errors import AuthenticationError as AuthenticationError
    from chatscope.errors import BadRequestError as BadRequestError
    from chatscope.errors import BudgetExceededError as BudgetExceededError
    from chatscope.errors import ChatError as ChatError
    from chatscope.errors import ConflictError as ConflictError
    from chatscope.errors import InternalServerError as InternalServerError
    from chatscope.errors import InvalidResponseError as InvalidResponseError
    from chatscope.errors import NotFoundError as NotFoundError
    from chatscope.errors import OutputError as OutputError
    from chatscope.errors import OutputInvalidError as OutputInvalidError
    from chatscope.errors import OutputRefusedError as OutputRefusedError
    from chatscope.errors import OutputTruncatedError as OutputTruncatedError
    from chatscope.errors import PermissionDeniedError as PermissionDeniedError
    from chatscope.errors import QueueFullError as QueueFullError
    from chatscope.errors import QuotaExceededError as QuotaExceededError
    from chatscope.errors import RateLimitError as RateLimitError
    from chatscope.errors import ResultTimeoutError as ResultTimeoutError
    from chatscope.errors import StreamError as StreamError
    from chatscope.errors import StreamProtocolError as StreamProtocolError
    from chatscope.errors import StreamServerError as StreamServerError
    from chatscope.errors import StreamTruncatedError as StreamTruncatedError
    from chatscope.errors import TaskCancelledError as TaskCancelledError
    from chatscope.errors import TaskError as TaskError
    from chatscope.errors import ToolError as ToolError
    from chatscope.errors import ToolLoopError as ToolLoopError
    from chatscope.errors import ToolTimeoutError as ToolTimeoutError
    from chatscope.errors import UnknownTaskError as UnknownTaskError
    from chatscope.errors import UnprocessableEntityError as UnprocessableEntityError
    from chatscope.pricing import Price as Price
    from chatscope.pricing import PriceQuery as PriceQuery
    from chatscope.profiles import Profile as Profile
    from chatscope.protocol.events import ChoiceFinished as ChoiceFinished
    from chatscope.protocol.events import ReasoningDelta as ReasoningDelta
    from chatscope.protocol.events import ReasoningDone as ReasoningDone
    from chatscope.protocol.events import RefusalDelta as RefusalDelta
    from chatscope.protocol.events import RefusalDone as RefusalDone
    from chatscope.protocol.events import StreamEvent as StreamEvent
    from chatscope.protocol.events import TextDelta as TextDelta
    from chatscope.protocol.events import TextDone as TextDone
    from chatscope.protocol.events import ToolArgumentsDelta as ToolArgumentsDelta
    from chatscope.protocol.events import ToolCallDone as ToolCallDone
    from chatscope.protocol.events import ToolCallStarted as ToolCallStarted
    from chatscope.protocol.events import UsageReported as UsageReported
    from chatscope.protocol.messages import AssistantMessage as AssistantMessage
    from chatscope.protocol.messages import ContentPart as ContentPart
    from chatscope.protocol.messages import DeveloperMessage as DeveloperMessage
    from chatscope.protocol.messages import FunctionMessage as FunctionMessage
    from chatscope.protocol.messages import Message as Message
    from chatscope.protocol.messages import SystemMessage as SystemMessage
    from chatscope.protocol.messages import ToolMessage as ToolMessage
    from chatscope.protocol.messages import UserMessage as UserMessage
    from chatscope.protocol.parameters import ChatParameters as ChatParameters
    from chatscope.protocol.parameters import TaskParameters as TaskParameters
    from chatscope.protocol.response import Chunk as Chunk
    from chatscope.protocol.response import Completion as Completion
    from chatscope.protocol.usage import Usage as Usage

_HOMES = {
    "_client.client": ("ChatClient",),
    "_client.event_stream": ("EventStream",),
    "_client.parameters": ("RequestParameters",),
    "_client.stream": ("ChatStream", "ParsedStream"),
    "_client.timings": ("Timings",),
    "_client.tool_stream": ("RunEvent", "ToolStream"),
    "_conversation.loop": ("RunResult", "StepDone", "ToolResult"),
    "_limits.attempts": ("Attempt",),
    "_limits.leased_pacer": ("LeasedPacer", "LimitSource"),
    "_limits.leases": ("Lease", "LeaseRequest", "LimitServer"),
    "_limits.limiter": ("Statistics",),
    "_limits.pacer": ("Pacer",),
    "_limits.retry": ("RetryPolicy",),
    "_limits.retry_decorators": ("retry_on_rate_limit", "retry_on_transient"),
    "_limits.timeouts": ("Timeouts",),
    "_tasks.adapter": ("AsyncChatGPTAdapter",),
    "_tasks.base": ("AsyncBasePlatformAdapter",),
    "_tasks.handle": ("ChatTask",),
    "_tasks.map": ("ResultStream",),
    "_tasks.models": (
        "Platform",
        "Result",
        "Task",
        "TaskConstraints",
        "TaskCounts",
        "TaskId",
        "TaskStatus",
        "TaskType",
    ),
    "_tasks.step_stream": ("StepStream",),
    "_tasks.text_stream": ("TextStream",),
    "errors": (
        "APIConnectionError",
        "APIStatusError",
        "APITimeoutError",
        "AuthenticationError",
        "BadRequestError",
        "BudgetExceededError",
        "ChatError",
        "ConflictError",
        "InternalServerError",
        "InvalidResponseError",
        "NotFoundError",
        "OutputError",
        "OutputInvalidError",
        "OutputRefusedError",
        "OutputTruncatedError",
        "PermissionDeniedError",
        "QueueFullError",
        "QuotaExceededError",
        "RateLimitError",
        "ResultTimeoutError",
        "StreamError",
        "StreamProtocolError",
        "StreamServerError",
        "StreamTruncatedError",
        "TaskCancelledError",
        "TaskError",
        "ToolError",
        "ToolLoopError",
        "ToolTimeoutError",
        "UnknownTaskError",
        "UnprocessableEntityError",
    ),
    "pricing": (
        "Price",
        "PriceQuery",
    ),
    "profiles": ("Profile",),
    "protocol.events": (
        "ChoiceFinished",
        "ReasoningDelta",
        "ReasoningDone",
        "RefusalDelta",
        "RefusalDone",
        "StreamEvent",
        "TextDelta",
        "TextDone",
        "ToolArgumentsDelta",
        "ToolCallDone",
        "ToolCallStarted",
        "UsageReported",
    ),
    "protocol.messages": (
        "AssistantMessage",
        "ContentPart",
        "DeveloperMessage",
        "FunctionMessage",
        "Message",
        "SystemMessage",
        "ToolMessage",
        "UserMessage",
    ),
    "protocol.parameters": (
        "ChatParameters",
        "TaskParameters",
    ),
    "protocol.response": (
        "Chunk",
        "Completion",
    ),
    "protocol.usage": ("Usage",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME_OF, "__version__", "content"])  # noqa: PLE0605 - one table says what is public  # pyright: ignore[reportUnsupportedDunderAll]


def load_at_first_use(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of a package of chatscope. For its own packages.

    Args:
        package: the package's name.
        homes: the public names, each with its module, relative to the package.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)  # over the module, where one has the name
        return value

    return load, sorted(homes).copy


_load, _ = load_at_first_use(__name__, _HOME_OF)


def __getattr__(name: str) -> Any:
    return import_module("chatscope.content") if name == "content" else _load(name)


def __dir__() -> list[str]:
    return sorted(__all__)
