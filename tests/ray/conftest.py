"""A real cluster of several nodes on this machine, and a server that its workers can reach."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest
from anyio.from_thread import start_blocking_portal

from benchmarks.harness.ray_cluster import RayCluster
from chatscope.simulator import Config, Reply, Simulator, simulator

WITHOUT_RAY = "Ray is not installed (extra `ray`); the nox session `ray` runs these tests"


class ChatServer:
    """A simulator in a thread of its own.

    Attributes:
        url: its base URL.
        sim: the simulator, which keeps what it received.
    """

    def __init__(self, sim: Simulator, url: str) -> None:
        self.sim = sim
        self.url = url

    def asked(self) -> list[str]:
        """Return what was asked, in order, a prompt for each request."""
        return [request.json["messages"][-1]["content"] for request in list(self.sim.requests)]

    def times(self) -> list[float]:
        """Return when the requests arrived."""
        return [request.time for request in list(self.sim.requests)]

    def wait_for(self, requests: int, seconds: float = 180.0) -> None:
        """Wait until so many requests have arrived."""
        until(lambda: self.sim.requests_received >= requests, seconds)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that another process does."""
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(scope="module")  # the guide starts one of its own
def cluster() -> Iterator[RayCluster]:
    if find_spec("ray") is None:
        pytest.skip(WITHOUT_RAY)
    with RayCluster() as made:
        yield made


@pytest.fixture
def server() -> Iterator[ChatServer]:
    sim = simulator(Reply("Hello.", first_token=0.05), Config(keep_requests=100_000))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sim) as url:
        yield ChatServer(sim, url)
