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

    monkeypatch.setattr(time, "perf_counter_ns", now_ns)
    monkeypatch.setattr(time, "process_time_ns", lambda: 0)  # no share of a time that jumps
    monkeypatch.setattr("chatscope.transport.proxies.perf_counter_ns", now_ns)
    return virtual_time
