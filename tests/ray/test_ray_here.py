"""What `chatscope.ray` does in one process: columns, an adapter that stays open, and errors without Ray."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.batches import line, write_lines
from tests.support.memory_server import Serve

from chatscope.batch import BatchOptions
from chatscope.cli import main
from chatscope.ray import ChatMap, SharedLimit, run_batch_on_ray
from chatscope.ray.chat_map import COLUMNS
from chatscope.ray.sharded_run import SHARD_OPTIONS
from chatscope.simulator import Reply, error


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the loop of Ray's actors


@pytest.fixture
def numpy() -> Any:
    return pytest.importorskip("numpy", reason="numpy is not installed; Ray brings it")


def stage(serve: Serve, script: Any = None, **given: Any) -> ChatMap:
    adapter = {"api_key": "sk-1", "transport": serve(script), "retry": 1}
    return ChatMap(adapter=adapter, **{"prompt": "{text}", **given})


async def test_every_batch_has_the_same_columns_and_no_row_raises(numpy: Any, serve: Serve) -> None:
    def script(request: Any) -> Any:
        return error(500) if request.body["messages"][0]["content"] == "bad" else Reply("Hello.")

    ask = stage(serve, script)
    batch = {"text": numpy.array(["good", "bad", ""], dtype=object), "status": numpy.array([1, 2, 3])}
    done = await ask(batch)
    await ask.aclose()
    assert list(done) == ["text", "input_status", *COLUMNS]
    assert {name: str(done[name].dtype) for name in COLUMNS} == COLUMNS
    assert done["output"].tolist() == ["Hello.", "", ""]
    assert done["status"].tolist() == [200, 500, 0]
    assert done["attempts"].tolist() == [1, 1, 0]
    assert [bool(text) for text in done["error"]] == [False, True, True]
    assert done["input_status"].tolist() == [1, 2, 3]
    assert [count > 0 for count in done["prompt_tokens"].tolist()] == [True, False, False]


async def test_rows_may_be_conversations(numpy: Any, serve: Serve) -> None:
    """Ray makes arrays of lists of dicts. The request has lists again."""
    seen: list[Any] = []

    def script(request: Any) -> Any:
        seen.append(request.body["messages"])
        return Reply("Hello.")

    ask = stage(serve, script, prompt=None, system="Be brief.")
    messages = numpy.empty(1, dtype=object)
    messages[0] = numpy.array([{"role": "user", "content": "hi"}], dtype=object)
    done = await ask({"messages": messages})
    await ask.aclose()
    assert done["error"].tolist() == [""]
    assert seen == [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]]


async def test_a_stage_without_a_key_says_so(numpy: Any, serve: Serve) -> None:
    ask = ChatMap(prompt="{text}", adapter={"transport": serve()})
    for _ in range(2):
        with pytest.raises(ValueError, match="no API key"):
            await ask({"text": numpy.array(["a"], dtype=object)})


async def test_a_batch_that_is_no_mapping_is_refused(serve: Serve) -> None:
    with pytest.raises(TypeError, match="batch_format='numpy'"):
        await stage(serve)([1, 2])  # type: ignore[arg-type]


def test_dropping_the_stage_closes_its_connections(numpy: Any, serve: Serve) -> None:
    """As Ray Data ends it: from another thread than that of the event loop, which goes on."""
    server = serve()
    asked, dropped = threading.Event(), threading.Event()

    async def actor() -> None:
        stages = [ChatMap(prompt="{text}", adapter={"api_key": "sk-1", "transport": server})]
        await stages[0]({"text": numpy.array(["a"], dtype=object)})

        def drop() -> None:
            asked.wait(10)
            stages.clear()
            dropped.set()

        threading.Thread(target=drop).start()
        asked.set()
        with anyio.fail_after(10):
            while not dropped.is_set():  # noqa: ASYNC110 - a thread drops it
                await anyio.sleep(0.01)
        assert server.closed

    anyio.run(actor)


async def test_leaving_the_event_loop_cancels_what_runs(numpy: Any, serve: Serve) -> None:
    server = serve(Reply("Hello.", first_token=60))
    ask = ChatMap(prompt="{text}", adapter={"api_key": "sk-1", "transport": server})
    with anyio.move_on_after(0.2) as scope:
        await ask({"text": numpy.array(["a"], dtype=object)})
    assert scope.cancelled_caught
    with anyio.fail_after(5):
        await ask.aclose()
    assert server.closed


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: ChatMap(prompt="{0}"), "is not the name of a column"),
        (lambda: ChatMap(parameters={"messages": []}), "parameters must not have 'messages'"),
        (lambda: SharedLimit(0), "requests_per_minute"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        call()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for call in (lambda: run_batch_on_ray("in", tmp_path / "out", address="local"), SharedLimit(1).start):
        with pytest.raises(ImportError, match=r"pip install 'chatscope\[ray\]'"):
            call()


def test_every_option_of_a_batch_applies_somewhere() -> None:
    """A new option must not vanish on a cluster: is it a worker's, or does it concern the whole batch?"""
    of_the_batch = (
        "model system parameters prompt id_column input_format limit strict retry_errors changed new_settings"
    )
    of_the_batch += " repair dedup ordered max_errors max_cost max_tokens_total"
    options = {option.name for option in fields(BatchOptions)}
    assert options == {*SHARD_OPTIONS, *of_the_batch.split()}


def test_shards_cannot_be_combined_with_dedup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", type(sys)("ray"))
    output = tmp_path / "out"
    with pytest.raises(ValueError, match="dedup"):
        run_batch_on_ray("in", output, address="local", options=BatchOptions(dedup=True))
    with pytest.raises(ValueError, match="workers"):
        run_batch_on_ray("in", output, address="local", workers=0)


@pytest.mark.parametrize("command", [["batch", "run", "in.jsonl", "-o", "out.jsonl"], ["load", "--rate", "1"]])
def test_the_commands_name_the_extra(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    write_lines(tmp_path / "in.jsonl", [line(0)])
    more = ["--requests", "1", "--no-calibrate-prompts"] if command[0] == "load" else []
    assert main([*command, *more, "--model", "m", "--ray", "local"]) == 2
    assert "pip install 'chatscope[ray]'" in capsys.readouterr().err
