"""Every Python block of the README runs, as it stands, against a simulator."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from chatscope.simulator import simulator

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCKS = [
    pytest.param(match[1], id=f"line {README.read_text()[: match.start()].count(chr(10)) + 1}")
    for match in re.finditer(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
]


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(simulator()) as url:
        yield url


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs(block: str, base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any key")
    monkeypatch.setenv("OPENAI_BASE_URL", base_url)
    exec(compile(block, str(README), "exec"), {"__name__": "__main__"})


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 6


def test_the_two_commands_are_one_line_each() -> None:
    consoles = re.findall(r"^```console\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert [block.count("\n") for block in consoles] == [1, 1]
    assert "chatscope demo" in consoles[0]
    assert "pytest" in consoles[1]
