"""The streaming server as a process of its own, as both its tests and those with a browser need it."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING

from chatscope.simulator import Answer, ChatRequest

if TYPE_CHECKING:
    from tests.support.processes import Launch
    from tests.support.simulated import Simulated


def by_prompt(**answers: Answer) -> Callable[[ChatRequest], Answer]:
    """Answer by what is asked."""
    return lambda request: answers[request.prompt]


class Served:
    """The example's own command, running against a simulator, or against the one that it brings along."""

    def __init__(self, launch: Launch, simulated: Simulated | None) -> None:
        base_url = simulated.base_url if simulated else None
        self.process = launch(
            "examples.streaming_server", "--port", "0", *(() if simulated else ("--simulate",)), base_url=base_url
        )
        assert self.process.stderr
        while not (found := re.search(r"running on (http://\S+:(\d+)) ", self.process.stderr.readline())):
            assert self.process.poll() is None, "it did not start"
        self.url = found[1]
        self._port = int(found[2])

    def ask(self, question: str) -> tuple[HTTPConnection, HTTPResponse]:
        """Ask with a raw HTTP client."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("POST", "/answer", body=question)
        return connection, connection.getresponse()

    def stop(self) -> str:
        """Stop it as Ctrl-C does; return what it has logged since it started. Nothing may be left to wait for."""
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate()
        assert self.process.returncode == 0
        return err
