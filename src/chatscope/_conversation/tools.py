"""Tools: Python functions as the endpoint's tool definitions, and the tool calls that a model makes.

Not here: how a function is run (`tool_runner.py`), and what the model is sent before and after (`loop.py`).
"""

from __future__ import annotations

import inspect
import logging
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any, Final, Literal, TypeAlias, get_type_hints
from weakref import WeakKeyDictionary

import anyio
import msgspec
from anyio.lowlevel import checkpoint_if_cancelled

from chatscope._conversation.decoding import arguments_decoder
from chatscope._conversation.json_schema import object_schema
from chatscope._conversation.tool_runner import encode_result, run_function, whole_text
from chatscope._conversation.type_readers import Field
from chatscope._validation import check_on_tool_error, check_seconds
from chatscope.errors import ToolTimeoutError
from chatscope.protocol.response import ToolCall

OnToolError = Literal["report", "raise"]

_log: Final = logging.getLogger("chatscope.tools")

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""The names of functions that the endpoint accepts."""

Description: TypeAlias = tuple[str, dict[str, Any], Callable[[str], dict[str, Any]]]

_known: Final[dict[bool, WeakKeyDictionary[FunctionType, Description]]] = {
    True: WeakKeyDictionary(),
    False: WeakKeyDictionary(),
}
"""The descriptions derived from functions, with and without a strict schema, kept as long as the functions exist."""

_ARGUMENTS: Final = re.compile(r"^Args:[ \t]*\n((?:[ \t]+\S.*\n?|[ \t]*\n)+)", re.MULTILINE)
_ARGUMENT: Final = re.compile(r"(\w+)(?:[ \t]*\([^)]*\))?:[ \t]*(.*)")


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call. Made by `Tool.of`.

    Attributes:
        name: the function's name.
        definition: describes it to the model.
        decode: decodes the JSON text that a model wrote to arguments of the parameters' types; raises `ValueError` for
            text that does not fit.
    """

    name: str
    definition: dict[str, Any]
    decode: Callable[[str], dict[str, Any]]
    _function: Callable[..., Any]

    @classmethod
    def of(cls, function: Callable[..., Any], *, strict: bool = True) -> Tool:
        """Return the tool for a function, a method, a `functools.partial` or an object with `__call__`.

        The first paragraph of its docstring describes it. A section `Args:` in Google's style describes the parameters;
        `Annotated[..., msgspec.Meta(description=...)]` takes precedence. In strict mode the model must give all
        parameters, even those with defaults. If a server lets it omit some, their defaults apply.

        Raises:
            ValueError: the function cannot be described to the endpoint. The error names the function, the parameter
                and the place in its type.
        """
        if not isinstance(function, FunctionType):
            return cls(*_described(function, strict), function)
        known = _known[strict]
        if function not in known:  # deriving a schema takes about a millisecond, and tasks share functions
            known[function] = _described(function, strict)
        return cls(*known[function], function)

    async def call(self, arguments: dict[str, Any]) -> str:
        """Call the function and return its result as text: a `str` as it is, anything else as JSON.

        If cancelled, a function that runs in a thread is abandoned: it runs to completion, and its result is lost.

        Raises:
            BaseException: what the function raised.
            TypeError: its result has no JSON form.
        """
        return encode_result(await run_function(partial(self._function, **arguments)))


def _described(function: Callable[..., Any], strict: bool) -> Description:
    """Return the name, definition and decoder of the tool for a function."""
    inner = _innermost(function)
    name = getattr(inner, "__name__", None) or type(inner).__name__
    if not callable(function) or not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"tools must be functions with a name of letters and digits, not {function!r}")
    fields = _fields(function, inner, name)
    doc = inspect.getdoc(inner) or ""
    schema = object_schema(fields, _descriptions(doc), f"tool {name}: parameter ", strict=strict)
    definition: dict[str, Any] = {"name": name, "parameters": schema, "strict": strict}
    if summary := " ".join(_ARGUMENTS.sub("", doc).strip().split("\n\n")[0].split()):
        definition["description"] = summary
    decode = arguments_decoder(name, fields)
    # Some servers send no text if there are no arguments.
    return name, {"type": "function", "function": definition}, lambda text: decode(text or "{}")


class Toolbox:
    """The functions that a model may call.

    Args:
        functions: the functions. They must have different names.
        timeout: how long each call may take, in seconds. `None` sets no limit.
        on_error: `"report"` sends the model what a function raised, `"raise"` ends the conversation with it.
        strict: whether the schemas are strict, so that the endpoint enforces them.

    Raises:
        ValueError: an argument is invalid. The error names it, and the function and its parameter.
    """

    __slots__ = ("_raises", "_timeout", "_tools")

    def __init__(
        self,
        functions: Sequence[Callable[..., Any]],
        *,
        timeout: float | None = None,
        on_error: OnToolError = "report",
        strict: bool = True,
    ) -> None:
        check_seconds(timeout, "tool_timeout")
        check_on_tool_error(on_error)
        if not isinstance(functions, Iterable):
            raise ValueError(f"tools must be a list of functions, not {functions!r}")  # noqa: TRY004 - bad input is a ValueError throughout
        self._timeout = timeout
        self._raises = on_error == "raise"
        self._tools: dict[str, Tool] = {}
        for tool in map(partial(Tool.of, strict=strict), functions):
            if tool.name in self._tools:
                raise ValueError(f"tools must have different names; two are called {tool.name!r}")
            self._tools[tool.name] = tool

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """The tools' definitions in the endpoint's format."""
        return [tool.definition for tool in self._tools.values()]

    async def call_all(self, calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
        """Make a turn's calls concurrently, and return the messages with their results, in the calls' order.

        If cancelled, all calls are cancelled. A call of an unknown function, or with arguments that do not fit, results
        in an error message that says what is wrong.

        Raises:
            BaseException: with `"raise"`, what the first function to fail raised, unchanged; the other calls are
                cancelled. `KeyboardInterrupt` in any case.
        """
        results = [""] * len(calls)
        failures: list[BaseException] = []

        async def run(index: int, call: ToolCall) -> None:
            # No error leaves this child: the task group would wrap it in an ExceptionGroup.
            try:
                results[index] = await self._result(call)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for index, call in enumerate(calls):
                group.start_soon(run, index, call, name=f"tool {call.function.name}")
        if failures:
            raise failures[0]
        return [
            {"role": "tool", "tool_call_id": call.id, "content": text}
            for call, text in zip(calls, results, strict=True)
        ]

    async def _result(self, call: ToolCall) -> str:
        """Return the result of one call, or an error message for the model if it raised."""
        tool = self._tools.get(call.function.name)
        if tool is None:
            return _error(f"there is no tool {call.function.name!r}; there are: {', '.join(self._tools)}")
        try:
            arguments = tool.decode(call.function.arguments)
        except (ValueError, RecursionError) as error:
            return _error(f"the arguments are not valid: {error}")
        try:
            return await self._call(tool, arguments)
        except BaseException as error:
            if _contains(error, KeyboardInterrupt, GeneratorExit):
                raise
            if _contains(error, anyio.get_cancelled_exc_class()):  # trio raises a cancellation in groups, too
                await checkpoint_if_cancelled()
                if not isinstance(error, BaseExceptionGroup):
                    return _error("the call was cancelled by the tool itself")  # or by what it waited for
            if self._raises:
                raise
            _log.warning("tool %s failed; its error is sent to the model", tool.name, exc_info=error)
            return _error(_text_of(error))

    async def _call(self, tool: Tool, arguments: dict[str, Any]) -> str:
        if self._timeout is None:
            return await tool.call(arguments)
        with anyio.move_on_after(self._timeout):
            return await tool.call(arguments)
        raise ToolTimeoutError(f"tool {tool.name} took longer than {self._timeout:g} s")


def _contains(error: BaseException, *kinds: type[BaseException]) -> bool:
    """Return whether an error is of one of these kinds, or a group that contains such an error."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(kinds) is not None
    return isinstance(error, kinds)


def _innermost(function: Any) -> Any:
    """Return the function within a `functools.partial`."""
    while isinstance(function, partial):
        function = function.func
    return function


def _fields(function: Callable[..., Any], inner: Callable[..., Any], name: str) -> list[Field]:
    """Return the parameters of a function.

    Raises:
        ValueError: one cannot be given by name, or has no type.
    """
    annotated: Any = inner
    if isinstance(inner, type):
        annotated = inner.__init__  # type: ignore[misc]  # its annotations only
    elif not inspect.isroutine(inner) and not hasattr(inner, "__wrapped__"):
        annotated = type(inner).__call__
    try:
        parameters = inspect.signature(function).parameters.values()
        hints = get_type_hints(annotated, include_extras=True)
    except Exception as error:
        raise ValueError(f"tool {name}: its signature cannot be read: {error}") from error
    given = function.keywords if isinstance(function, partial) else {}
    for parameter in parameters:
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise ValueError(f"tool {name}: parameter {parameter} cannot be given by name")
        if parameter.name not in hints:
            raise ValueError(f"tool {name}: parameter {parameter.name} has no type annotation")
    return [
        Field(parameter.name, parameter.name, hints[parameter.name], parameter.default is parameter.empty)
        for parameter in parameters
        if parameter.name not in given
    ]


def _descriptions(doc: str) -> dict[str, str]:
    """Return a docstring's description of each parameter."""
    texts: dict[str, str] = {}
    name = ""
    section = _ARGUMENTS.search(doc)
    for line in textwrap.dedent(section[1]).splitlines() if section else ():
        if entry := _ARGUMENT.match(line):
            name = entry[1]
            texts[name] = entry[2]
        elif name:
            texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts


def _text_of(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(_text_of, error.exceptions))
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its own __str__ fails
        return type(error).__name__


def _error(problem: str) -> str:
    return msgspec.json.encode({"error": whole_text(problem)}).decode()
