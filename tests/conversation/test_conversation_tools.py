"""Functions to tool definitions, and the calling of them."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import msgspec
import pydantic
import pytest

from chatscope._conversation import tool_runner
from chatscope._conversation.tools import Tool, Toolbox
from chatscope.protocol.response import FunctionCall, ToolCall


class Place(msgspec.Struct):
    """Where."""

    city: str
    country: str = "DE"


async def weather(
    place: Place,
    unit: Literal["C", "F"] = "C",
    days: Annotated[int, msgspec.Meta(ge=1, description="from the type")] = 1,
    *,
    hints: list[str] | None = None,
) -> dict[str, Any]:
    """Tell the weather of a place.

    Not for the model.

    Args:
        place: the place,
            in full
        unit (str): of the temperature: Celsius
            or Fahrenheit

        days: from the docstring
        hints:
            on a line of its own

    Returns:
        what: it is like
    """
    return {"city": place.city, "unit": unit, "days": days, "hints": hints}


class Chain(msgspec.Struct):
    next: Chain | None


async def follow(chain: Chain) -> None: ...


def call(name: str, arguments: Any = "", call_id: str = "c1") -> ToolCall:
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return ToolCall(id=call_id, function=FunctionCall(name=name, arguments=text))


async def answers(toolbox: Toolbox, *calls: ToolCall) -> list[str]:
    return [message["content"] for message in await toolbox.call_all(calls)]


async def answer(function: Callable[..., Any], arguments: Any = "", **options: Any) -> str:
    (text,) = await answers(Toolbox([function], **options), call(Tool.of(function).name, arguments))
    return text


# -- definitions -------------------------------------------------------------------------------------------------------


def test_a_function_is_described_by_its_signature_and_its_docstring() -> None:
    assert Tool.of(weather).definition == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tell the weather of a place.",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {
                        "type": "object",
                        "description": "the place, in full",
                        "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
                        "required": ["city", "country"],
                        "additionalProperties": False,
                    },
                    "unit": {
                        "type": "string",
                        "enum": ["C", "F"],
                        "description": "of the temperature: Celsius or Fahrenheit",
                    },
                    "days": {"type": "integer", "minimum": 1, "description": "from the type"},
                    "hints": {
                        "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
                        "description": "on a line of its own",
                    },
                },
                "required": ["place", "unit", "days", "hints"],
                "additionalProperties": False,
            },
        },
    }


def test_a_function_that_says_nothing_is_described_by_its_name() -> None:
    def now() -> str:
        return ""

    def only_arguments(x: int) -> int:
        return x

    only_arguments.__doc__ = """
        Args:
            all of them are numbers
            x: a number
    """
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert Tool.of(now).definition["function"] == {"name": "now", "strict": True, "parameters": schema}
    definition = Tool.of(only_arguments).definition["function"]
    assert "description" not in definition
    assert definition["parameters"]["properties"] == {"x": {"type": "integer", "description": "a number"}}


def test_a_method_is_a_tool_without_its_self() -> None:
    class Shop:
        def price(self, item: str) -> float:
            return 1.0

    assert Tool.of(Shop().price).definition["function"]["parameters"]["required"] == ["item"]


class Opaque:
    pass


def unannotated(a: int, b) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001 - what this is about
def variable(*args: int) -> None: ...
def keywords(**options: int) -> None: ...
def positional(a: int, /) -> None: ...
def opaque(a: int, thing: Opaque) -> None: ...
def loose(options: dict[str, int]) -> None: ...
def nested(items: list[dict[str, int]]) -> None: ...
def unresolved(a: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - what this is about


def test_a_function_that_the_model_cannot_be_told_of_is_named() -> None:
    functions: list[tuple[Any, str]] = [
        (unannotated, "tool unannotated: parameter b has no type annotation"),
        (variable, r"tool variable: parameter \*args: '?int'? cannot be given by name"),
        (keywords, r"tool keywords: parameter \*\*options: '?int'? cannot be given by name"),
        (positional, "tool positional: parameter a: '?int'? cannot be given by name"),
        (opaque, "tool opaque: parameter thing: no schema can be derived from .*Opaque"),
        (loose, "tool loose: parameter options: strict mode has no mappings"),
        (nested, r"tool nested: parameter items\[\]: strict mode has no mappings"),
        (unresolved, "tool unresolved: its signature cannot be read: .*Missing"),
        (lambda: None, "tools must be functions with a name .*lambda"),
        ({"type": "function"}, "tools must be functions with a name .*'type'"),
    ]
    for function, says in functions:
        with pytest.raises(ValueError, match=f"^{says}"):
            Toolbox([function])


def test_a_function_is_described_once_and_not_kept_alive() -> None:
    def passing(x: int) -> int:
        return x

    assert Tool.of(passing).definition is Tool.of(passing).definition
    reference = weakref.ref(passing)
    del passing
    gc.collect()
    assert reference() is None


def test_a_toolbox_refuses_what_can_never_be_right() -> None:
    with pytest.raises(ValueError, match=r"^tools must have different names; two are called 'weather'"):
        Toolbox([weather, weather])
    with pytest.raises(ValueError, match=r"^tool_timeout must be a positive number of seconds, not 0"):
        Toolbox([weather], timeout=0)
    with pytest.raises(ValueError, match=r"^on_tool_error must be 'report' or 'raise', not 'ignore'"):
        Toolbox([weather], on_error="ignore")  # type: ignore[arg-type]  # what this is about


# -- calls -------------------------------------------------------------------------------------------------------------


async def test_arguments_come_in_their_types_and_defaults_apply() -> None:
    assert await answer(weather, {"place": {"city": "Bonn"}}) == '{"city":"Bonn","unit":"C","days":1,"hints":null}'
    given = {"place": {"city": "Bonn", "country": "DE"}, "unit": "F", "days": 2, "hints": ["a"]}
    assert await answer(weather, given) == '{"city":"Bonn","unit":"F","days":2,"hints":["a"]}'


class Model(pydantic.BaseModel):
    x: int


class Both(msgspec.Struct):
    name: str
    model: Model


async def test_a_result_goes_back_as_text_without_halves_of_surrogate_pairs() -> None:
    results: list[tuple[Any, str]] = [
        ("as it is", "as it is"),
        (None, "null"),
        ([1, {"a": None}], '[1,{"a":null}]'),
        (Place("Bonn"), '{"city":"Bonn","country":"DE"}'),
        ([Model(x=1)], '[{"x":1}]'),
        ("caf\udce9.txt", "caf\ufffd.txt"),
        ("\ud83d\ude00", "\U0001f600"),
        (["caf\udce9.txt"], '["caf\ufffd.txt"]'),
        ({"caf\udce9": Both("\udce9", Model(x=1))}, '{"caf\ufffd": {"name": "\ufffd", "model": {"x": 1}}}'),
    ]
    for result, text in results:

        async def tool(result: Any = result) -> Any:
            return result

        assert await answer(functools.partial(tool, result=result)) == text


async def test_sync_functions_run_in_a_worker_thread_and_async_ones_in_place() -> None:
    here = threading.get_ident()

    def sync() -> bool:
        return threading.get_ident() == here

    async def in_place() -> bool:
        return threading.get_ident() == here

    assert await answer(sync) == "false"
    assert await answer(in_place) == "true"


async def echo(x: int = 0) -> str:
    """Say it again."""
    await anyio.lowlevel.checkpoint()
    return f"got {x}"


def returns_coroutine(x: int = 0) -> Awaitable[str]:
    return echo(x)


@functools.wraps(echo)
def wrapper(*args: Any, **kwargs: Any) -> Awaitable[str]:
    return echo(*args, **kwargs)


@functools.wraps(echo)
def sync_wrapper(*args: Any, **kwargs: Any) -> str:
    return f"got {kwargs['x']}"


@functools.lru_cache
def cached(x: int = 0) -> str:
    return f"got {x}"


class Echo:
    """Say it again."""

    async def __call__(self, x: int = 0) -> str:
        return await echo(x)

    async def method(self, x: int = 0) -> str:
        return await echo(x)

    def sync(self, x: int = 0) -> str:
        return f"got {x}"


class SyncEcho:
    def __call__(self, x: int = 0) -> Awaitable[str]:
        return echo(x)


def scaled(x: int, by: int, *, plus: int) -> str:
    return f"got {x * by + plus}"


@dataclasses.dataclass
class Made:
    x: int = 0


async def test_every_kind_of_callable_is_called_and_what_it_returns_is_awaited() -> None:
    functions: list[tuple[Callable[..., Any], str]] = [
        *((function, "got 3") for function in (echo, returns_coroutine, wrapper, sync_wrapper, cached)),
        *((function, "got 3") for function in (Echo(), Echo().method, Echo().sync, SyncEcho())),
        (functools.partial(scaled, by=2, plus=1), "got 7"),
        (functools.partial(functools.partial(echo)), "got 3"),
        (Made, '{"x":3}'),
    ]
    for function, text in functions:
        tool = Tool.of(function)
        assert list(tool.definition["function"]["parameters"]["properties"]) == ["x"], function
        assert await answer(function, {"x": 3}) == text, function
    assert Tool.of(Echo()).definition["function"]["name"] == "Echo"
    assert Tool.of(Echo()).definition["function"]["description"] == "Say it again."


async def test_threads_are_those_of_tools_alone_and_never_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anyio.to_thread.current_default_thread_limiter(), "total_tokens", 0)
    monkeypatch.setattr(tool_runner, "TOOL_THREADS", 1)

    def leaf(depth: int) -> str:
        return f"leaf {depth}"

    def nested(depth: int) -> str:
        if not depth:
            return anyio.from_thread.run(answer, leaf, {"depth": 0})
        return anyio.from_thread.run(answer, nested, {"depth": depth - 1})

    with anyio.fail_after(30):
        calls = [call("nested", {"depth": 3}), call("nested", {"depth": 2})]
        assert await answers(Toolbox([nested]), *calls) == ["leaf 0", "leaf 0"]


async def test_a_call_that_the_model_got_wrong_is_answered_with_what_is_wrong() -> None:
    wrong = [
        (call("storm"), "there is no tool 'storm'; there are: weather, follow"),
        (call("weather", "{"), "the arguments are not valid: Input data was truncated"),
        (call("weather"), "the arguments are not valid: Object missing required field `place`"),
        (call("weather", '{"place": {"city": "\\ud800"}}'), "the arguments are not valid: "),
        (call("weather", '{"place": {"city": 5, "\udce9": 1}}'), "the arguments are not valid: "),
        (call("follow", '{"chain":' + '{"next":' * 100_000), "the arguments are not valid: maximum recursion depth"),
        (
            call("weather", {"place": {"city": "Bonn"}, "days": 0}),
            "the arguments are not valid: Expected `int` >= 1 - at `$.days`",
        ),
        (
            call("weather", {"place": {"city": "Bonn"}, "until": 3}),
            "the arguments are not valid: Object contains unknown field `until`",
        ),
    ]
    for on_error in ("report", "raise"):
        toolbox = Toolbox([weather, follow], on_error=on_error)
        for one, says in wrong:
            (text,) = await answers(toolbox, one)
            assert msgspec.json.decode(text)["error"].startswith(says)


class Stop(BaseException):
    pass


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


FAILURES: list[tuple[BaseException, str]] = [
    (ValueError("caf\udce9.txt"), "ValueError: caf\ufffd.txt"),
    (SystemExit(2), "SystemExit: 2"),
    (Stop("all"), "Stop: all"),
    (StopIteration(), "RuntimeError: coroutine raised StopIteration"),
    (MuteError(), "MuteError"),
    (ExceptionGroup("some", [ValueError("a"), OSError("b")]), "ValueError: a; OSError: b"),
    (BaseExceptionGroup("some", [Stop("a")]), "Stop: a"),
]


async def test_what_a_tool_raises_reaches_the_model_alone() -> None:
    def sync(failure: BaseException) -> None:
        raise failure

    async def in_place(failure: BaseException) -> None:
        raise failure

    for failure, says in FAILURES:
        for function in (sync, in_place):
            text = await answer(functools.partial(function, failure=failure))
            assert msgspec.json.decode(text)["error"] == says
    with pytest.raises(KeyboardInterrupt):
        await answer(functools.partial(in_place, failure=KeyboardInterrupt()))
    with pytest.raises(Stop):
        await answer(functools.partial(sync, failure=Stop()), on_error="raise")


async def test_a_cancellation_passes_a_tool_whose_children_fail() -> None:
    started = anyio.Event()

    async def tool() -> None:
        async def fails_late() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise ValueError("late")

        async with anyio.create_task_group() as group:
            group.start_soon(fails_late)
            started.set()
            await anyio.sleep_forever()

    ends: list[str] = []
    async with anyio.create_task_group() as group:

        async def run() -> None:
            ends.append(await answer(tool))

        group.start_soon(run)
        await started.wait()
        group.cancel_scope.cancel()
    assert ends == []


async def test_an_error_is_told_to_the_model_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise LookupError("no such city")

    def unspeakable() -> object:
        return object()

    assert await answer(broken) == '{"error":"LookupError: no such city"}'
    assert await answer(unspeakable) == '{"error":"TypeError: a object has no JSON form"}'
    (first, _) = caplog.records
    assert (first.name, first.levelname) == ("chatscope.tools", "WARNING")
    assert first.getMessage() == "tool broken failed; its error is sent to the model"
    assert first.exc_info is not None
    assert isinstance(first.exc_info[1], LookupError)


async def test_an_error_is_raised_as_itself_and_cancels_the_other_calls() -> None:
    waiting = anyio.Event()
    ends: list[str] = []

    async def waits() -> None:
        try:
            waiting.set()
            await anyio.sleep_forever()
        finally:
            ends.append("cancelled")

    async def fails() -> None:
        await waiting.wait()
        raise LookupError("no such city")

    toolbox = Toolbox([waits, fails], on_error="raise")
    with pytest.raises(LookupError, match="no such city"):
        await toolbox.call_all([call("waits"), call("fails")])
    assert ends == ["cancelled"]


async def test_the_calls_of_a_turn_run_at_the_same_time_and_are_answered_in_their_order() -> None:
    started: list[int] = []
    all_there = anyio.Event()

    async def meet(number: int) -> int:
        started.append(number)
        if len(started) == 3:
            all_there.set()
        await all_there.wait()
        return number

    calls = [call("meet", {"number": number}, f"c{number}") for number in range(3)]
    assert await Toolbox([meet]).call_all(calls) == [
        {"role": "tool", "tool_call_id": f"c{number}", "content": str(number)} for number in range(3)
    ]


async def test_cancelling_cancels_the_calls_and_leaves_threads_behind() -> None:
    running, blocked, release, ended = anyio.Event(), threading.Event(), threading.Event(), threading.Event()

    async def waits() -> None:
        running.set()
        await anyio.sleep_forever()

    def blocks() -> None:
        blocked.set()
        release.wait(30)
        ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(Toolbox([waits, blocks]).call_all, [call("waits"), call("blocks")])
        await running.wait()
        assert await anyio.to_thread.run_sync(blocked.wait, 30)
        group.cancel_scope.cancel()
    assert not ended.is_set()
    release.set()
    assert await anyio.to_thread.run_sync(ended.wait, 30)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (asyncio.CancelledError(), "the call was cancelled by the tool itself"),
        (
            BaseExceptionGroup("several", [ValueError("one"), asyncio.CancelledError()]),
            "ValueError: one; CancelledError: ",
        ),
    ],
    ids=["alone", "in a group"],
)
async def test_a_tool_that_is_cancelled_from_within_is_reported_alone(
    anyio_backend: str, error: BaseException, reported: str
) -> None:
    async def cancelled() -> None:
        raise error

    async def waits() -> str:
        await anyio.lowlevel.checkpoint()
        return "done"

    results = await Toolbox([cancelled, waits]).call_all([call("cancelled"), call("waits")])
    assert [result["content"] for result in results] == [f'{{"error":"{reported}"}}', "done"]
