"""Tools: Python functions as the endpoint's tool definitions, and the calling of those that a model asks for.

What is said to the model before and after is decided in `turns.py`.
"""

from __future__ import annotations

import inspect
import logging
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, get_type_hints

import anyio
import anyio.to_thread
import msgspec

from chatscope._conversation.json_schema import object_schema
from chatscope._validation import check_on_tool_error, check_seconds
from chatscope.errors import ToolTimeoutError
from chatscope.protocol.response import ToolCall

OnToolError = Literal["report", "raise"]

_log: Final = logging.getLogger("chatscope.tools")

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What the endpoint takes as the name of a function."""

_ARGUMENTS: Final = re.compile(r"^Args:[ \t]*\n((?:[ \t]+\S.*\n?|[ \t]*\n)+)", re.MULTILINE)
_ARGUMENT: Final = re.compile(r"(\w+)(?:[ \t]*\([^)]*\))?:[ \t]*(.*)")


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call. Made by `Tool.of`.

    Attributes:
        name: the function's.
        definition: describes it to the model.
    """

    name: str
    definition: dict[str, Any]
    _function: Callable[..., Any]
    _arguments: msgspec.json.Decoder[Any]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Tool:
        """Return the tool that a function makes.

        The first paragraph of its docstring describes it. Its parameters are described by a section `Args:` in
        Google's style, or by `Annotated[..., msgspec.Meta(description=...)]`, which goes first. The model must give
        all of them, those with defaults too, as strict mode has it; where it does not, the defaults apply.

        Raises:
            ValueError: the endpoint cannot be told of it; the error names the function and the parameter.
        """
        name = getattr(function, "__name__", None)
        if not callable(function) or not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"tools must be functions with a name of letters and digits, not {function!r}")
        parameters = _parameters(function, name)
        types = {parameter: kind for parameter, (kind, _) in parameters.items()}
        doc = inspect.getdoc(function) or ""
        schema = object_schema(types, _descriptions(doc), f"tool {name}: parameter ")
        definition: dict[str, Any] = {"name": name, "parameters": schema, "strict": True}
        if summary := " ".join(_ARGUMENTS.sub("", doc).strip().split("\n\n")[0].split()):
            definition["description"] = summary
        # Unset rather than the function's own defaults: those need not be what a struct can have.
        fields: list[Any] = [
            (parameter, kind | msgspec.UnsetType, msgspec.UNSET) if has_default else (parameter, kind)
            for parameter, (kind, has_default) in parameters.items()
        ]
        arguments = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
        return cls(name, {"type": "function", "function": definition}, function, msgspec.json.Decoder(arguments))

    def decode(self, arguments: str) -> dict[str, Any]:
        """Return the arguments that a model wrote, each of the parameter's type.

        Raises:
            ValueError: they are no JSON, or do not fit.
        """
        given = self._arguments.decode(arguments or "{}")  # some servers send nothing where there are none
        values = {name: getattr(given, name) for name in given.__struct_fields__}
        return {name: value for name, value in values.items() if value is not msgspec.UNSET}

    async def call(self, arguments: dict[str, Any]) -> str:
        """Call the function and return its result as text: a `str` as it is, anything else as JSON.

        An async function is awaited in place and cancelled like everything else. Any other runs in a worker thread.
        Cancelled, that is left behind: the function runs on to its end, and nobody sees its result.

        Raises:
            Exception: whatever the function raises.
            TypeError: its result has no JSON form.
        """
        function = partial(self._function, **arguments)
        if inspect.iscoroutinefunction(inspect.unwrap(self._function)):  # also behind a decorator
            result = await function()
        else:
            result = await anyio.to_thread.run_sync(function, abandon_on_cancel=True)
        return result if isinstance(result, str) else msgspec.json.encode(result, enc_hook=_plain).decode()


class Toolbox:
    """The functions that a model may call, and how.

    Args:
        functions: the functions; their names differ.
        timeout: how long each call may take, in seconds; `None` is no limit.
        on_error: `"report"` tells the model what a function raised, `"raise"` ends the conversation with it.

    Raises:
        ValueError: an argument can never be right; the error names it, and the function and its parameter.
    """

    __slots__ = ("_raises", "_timeout", "_tools")

    def __init__(
        self,
        functions: Sequence[Callable[..., Any]],
        *,
        timeout: float | None = None,
        on_error: OnToolError = "report",
    ) -> None:
        check_seconds(timeout, "tool_timeout")
        check_on_tool_error(on_error)
        if not isinstance(functions, Iterable):
            raise ValueError(f"tools must be a list of functions, not {functions!r}")  # noqa: TRY004 - bad input is a ValueError throughout
        self._timeout = timeout
        self._raises = on_error == "raise"
        self._tools: dict[str, Tool] = {}
        for tool in map(Tool.of, functions):
            if tool.name in self._tools:
                raise ValueError(f"tools must have different names; two are called {tool.name!r}")
            self._tools[tool.name] = tool

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """What the model is told of them."""
        return [tool.definition for tool in self._tools.values()]

    async def answer(self, calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
        """Make a turn's calls, all at once, and return the messages that answer them, in the calls' order.

        Cancelled, all of them are. A call of no function, or with arguments that do not fit, is answered with what is
        wrong about it.

        Raises:
            Exception: with `"raise"`, what a function raised first, as it is; the other calls are cancelled.
        """
        texts = [_report("the call was cancelled by the tool itself")] * len(calls)
        failures: list[Exception] = []

        async def run(index: int, call: ToolCall) -> None:
            # No exception leaves the group's children: it would come out in an ExceptionGroup.
            try:
                texts[index] = await self._answer(call)
            except Exception as error:  # noqa: BLE001 - raised again below
                failures.append(error)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for index, call in enumerate(calls):
                group.start_soon(run, index, call, name=f"tool {call.function.name}")
        if failures:
            raise failures[0]
        return [
            {"role": "tool", "tool_call_id": call.id, "content": text} for call, text in zip(calls, texts, strict=True)
        ]

    async def _answer(self, call: ToolCall) -> str:
        tool = self._tools.get(call.function.name)
        if tool is None:
            return _report(f"there is no tool {call.function.name!r}; there are: {', '.join(self._tools)}")
        try:
            arguments = tool.decode(call.function.arguments)
        except (ValueError, RecursionError) as error:
            return _report(f"the arguments are not valid: {error}")
        try:
            return await self._call(tool, arguments)
        except Exception as error:
            if self._raises:
                raise
            _log.warning("tool %s failed; the model is told", tool.name, exc_info=error)
            return _report(f"{type(error).__name__}: {error}")

    async def _call(self, tool: Tool, arguments: dict[str, Any]) -> str:
        if self._timeout is None:
            return await tool.call(arguments)
        with anyio.move_on_after(self._timeout):
            return await tool.call(arguments)
        raise ToolTimeoutError(f"tool {tool.name} took longer than {self._timeout:g} s")


def _parameters(function: Callable[..., Any], name: str) -> dict[str, tuple[Any, bool]]:
    """Return the parameters of a function, their types, and whether they have defaults.

    Raises:
        ValueError: one cannot be given by name, or has no type.
    """
    try:
        parameters = inspect.signature(function).parameters
        hints = get_type_hints(function, include_extras=True)
    except Exception as error:
        raise ValueError(f"tool {name}: its signature cannot be read: {error}") from error
    for parameter in parameters.values():
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise ValueError(f"tool {name}: parameter {parameter} cannot be given by name")
        if parameter.name not in hints:
            raise ValueError(f"tool {name}: parameter {parameter.name} has no type annotation")
    return {
        parameter.name: (hints[parameter.name], parameter.default is not parameter.empty)
        for parameter in parameters.values()
    }


def _descriptions(doc: str) -> dict[str, str]:
    """Return what a docstring says about each parameter."""
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


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):  # a pydantic model
        return value.model_dump(mode="json")
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def _report(problem: str) -> str:
    return msgspec.json.encode({"error": problem}).decode()
