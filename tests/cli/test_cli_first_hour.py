"""The command line's small conveniences: what is piped in, parameters, schemas, images, models, narrow terminals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chatscope.cli import main
from chatscope.simulator import Outcome, Reply, error

if TYPE_CHECKING:
    from tests.support.command import Run
    from tests.support.simulated import Simulate

SECONDS = 30.0
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("arguments", "piped", "asked"),
    [
        (["Summarise:"], "a text\n", "Summarise:\n\na text\n"),
        ([], "a text\n", "a text\n"),
        (["-"], "a text\n", "a text\n"),
        (["hi"], "", "hi"),
    ],
)
def test_what_is_piped_in_follows_the_prompt(
    simulate: Simulate,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    piped: str,
    asked: str,
) -> None:
    server = simulate(Reply("yes"))
    reader, writer = os.pipe()
    with open(writer, "w") as end:  # noqa: PTH123 - it has no path
        end.write(piped)
    with open(reader) as stdin:  # noqa: PTH123 - as above
        monkeypatch.setattr("sys.stdin", stdin)
        assert main(["ask", *arguments]) == 0
    assert capsys.readouterr().out == "yes\n"
    assert server.body()["messages"][0]["content"] == asked


def test_what_is_sent_with_a_prompt(simulate: Simulate, chatscope: Run, tmp_path: Path) -> None:
    server = simulate(Reply("yes"))
    schema, image, document = (tmp_path / name for name in ("schema.json", "chart.png", "paper.pdf"))
    schema.write_text(json.dumps({"type": "object"}))
    image.write_bytes(PNG)
    document.write_bytes(b"%PDF-1.7")
    ran = chatscope(
        *("ask", "hi", "--system", "Be brief.", "--schema", str(schema), "--image", str(image)),
        *("--image", "https://a.example/b.png", "--file", str(document)),
        *("--parameter", "seed=7", "--parameter", 'stop=["x"]', "--parameter", "top_k=3", "--profile", "vllm"),
    )
    assert ran.code == 0, ran.err
    body = server.body()
    assert (body["seed"], body["stop"], body["top_k"]) == (7, ["x"], 3)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    system, user = body["messages"]
    assert system["content"] == "Be brief."
    assert [part["type"] for part in user["content"]] == ["text", "image_url", "image_url", "file"]


def test_a_parameter_with_a_typing_error_is_noted_and_sent(simulate: Simulate, chatscope: Run) -> None:
    server = simulate(Reply("yes"))
    ran = chatscope("ask", "hi", "--parameter", "temprature=1", "--parameter", "top_k=3")
    assert (ran.code, ran.out) == (0, "yes\n")
    assert ran.err == "'temprature' is sent as it is; did you mean 'temperature'?\n"
    assert (server.body()["temprature"], server.body()["top_k"]) == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--image", "/no/such.png"), "image: '/no/such.png' cannot be read"),
        (("--parameter", "seed"), "'seed' is not NAME=JSON"),
        (("--profile", "nobody"), "profile must be one of"),
    ],
)
def test_what_cannot_be_sent_exits_2(
    simulate: Simulate, chatscope: Run, arguments: tuple[str, ...], message: str
) -> None:
    simulate(Reply("yes"))
    ran = chatscope("ask", "hi", *arguments)
    assert ran.code == 2
    assert message in ran.err


def test_one_attempt_is_no_retry(simulate: Simulate, chatscope: Run) -> None:
    server = simulate(error(503))
    assert chatscope("ask", "hi", "--attempts", "1").code == 1
    assert server.outcome() is Outcome.COMPLETED
    assert len(server.server.requests) == 1


def test_models_are_listed(simulate: Simulate, chatscope: Run) -> None:
    server = simulate(Reply("yes"))
    ran = chatscope("models")
    assert (ran.code, ran.out.split()) == (0, ["gpt-4o-mini", "gpt-4o"]), ran.err
    ran = chatscope("models", "--base-url", server.base_url.removesuffix("/v1"))
    assert ran.code == 1
    assert "does base_url lack /v1?" in ran.err
    assert chatscope("models", "--base-url", "localhost").code == 2


def test_the_version(chatscope: Run) -> None:
    assert chatscope("-V") == chatscope("--version")


@pytest.mark.slow
def test_completion_can_be_installed() -> None:
    command = [sys.executable, "-m", "chatscope"]
    environment = {"_CHATSCOPE_COMPLETE": "zsh_source", "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert "#compdef chatscope" in ran.stdout
