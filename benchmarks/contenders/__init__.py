"""The list of contenders. Each has a file, which is imported only in the process that runs it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from benchmarks.contenders.base import Contender

ASYNCIO: Final = ("asyncio", "uvloop")
LOOPS: Final = (*ASYNCIO, "trio")


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender in the list.

    Args:
        name: its name on the command line and in the tables.
        what: a description.
        modules: for each event loop it runs on, the module in this folder with its class `Client`.
        packages: the packages that must be installed.
        imported: the module whose import time represents it, if any.
        source: the folder from which chatscope is imported, if it is not the installed one.
    """

    name: str
    what: str
    modules: Mapping[str, str]
    packages: tuple[str, ...]
    imported: str | None = None
    source: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is this package."""
        return "chatscope" in self.packages

    @property
    def missing(self) -> list[str]:
        """Which of the packages are not installed."""
        return [package for package in self.packages if find_spec(package) is None]

    def load(self, loop: str) -> type[Contender]:
        """Import its class and return it."""
        client: type[Contender] = importlib.import_module(f"benchmarks.contenders.{self.modules[loop]}").Client
        return client


def _on(loops: tuple[str, ...], module: str) -> dict[str, str]:
    return dict.fromkeys(loops, module)


CONTENDERS: Final = {
    entry.name: entry
    for entry in (
        Entry(
            "chatscope-task",
            "chatscope: submit_task to get_result",
            _on(LOOPS, "chatscope_task"),
            ("chatscope",),
            "chatscope",
        ),
        Entry("chatscope-client", "chatscope: ChatClient alone", _on(LOOPS, "chatscope_client"), ("chatscope",)),
        Entry(
            "floor",
            "bare protocol (trio: bare socket), llhttp, msgspec",
            _on(ASYNCIO, "floor") | {"trio": "floor_trio"},
            ("httptools", "msgspec"),
        ),
        Entry(
            "aiohttp",
            "raw aiohttp, orjson, the read timeout that chatscope has",
            _on(ASYNCIO, "raw_aiohttp"),
            ("aiohttp", "orjson"),
            "aiohttp",
        ),
        Entry("aiohttp-bare", "the same without it", _on(ASYNCIO, "raw_aiohttp_bare"), ("aiohttp", "orjson")),
        Entry("httpx", "raw httpx, orjson", _on(LOOPS, "raw_httpx"), ("httpx", "orjson"), "httpx"),
        Entry("httpx2", "raw httpx2, orjson", _on(LOOPS, "raw_httpx2"), ("httpx2", "orjson"), "httpx2"),
        Entry("openai", "the openai SDK", _on(LOOPS, "openai_sdk"), ("openai",), "openai"),
        Entry(
            "openai-aiohttp",
            "the openai SDK, its aiohttp backend",
            _on(ASYNCIO, "openai_sdk_aiohttp"),
            ("openai", "aiohttp"),
        ),
        Entry(
            "openai-chatscope",
            "the openai SDK on chatscope's transport",
            _on(LOOPS, "openai_sdk_chatscope"),
            ("openai", "httpx2", "chatscope"),
        ),
    )
}
"""Every contender by its name, in the order of the tables."""

__all__ = ["ASYNCIO", "CONTENDERS", "LOOPS", "Contender", "Entry"]
