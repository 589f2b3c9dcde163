"""Fixtures for load tests: virtual time that the stamps follow, too."""

from __future__ import annotations

import time

import anyio
import pytest

from chatscope.testing.loops import Backend


@pytest.fixture
def stamps_in_virtual_time(virtual_time: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Make the stamps follow the loop's clock, which jumps: a module makes this its `anyio_backend`."""

    def now_ns() -> int:
        return round(anyio.current_time() * 1e9)

    for module in ("proxies", "streams.on_trio"):  # they imported the function; first, or they would keep this one
        monkeypatch.setattr(f"chatscope.transport.{module}.perf_counter_ns", now_ns)
    monkeypatch.setattr(time, "perf_counter_ns", now_ns)
    monkeypatch.setattr(time, "process_time_ns", lambda: 0)  # no share of a time that jumps
    return virtual_time
