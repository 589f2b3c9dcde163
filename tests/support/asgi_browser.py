"""A browser without a network, for the examples that are ASGI applications."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
from starlette.applications import Starlette
from starlette.types import Message

SECONDS = 60.0
"""Far longer than any wait here; it ends a hang."""


class Browser:
    """A browser as an ASGI application sees it: it sends a question, reads messages, and leaves on `leave`.

    Args:
        question: the question.
        reads: the number of messages after which it stops reading, but stays connected.
        headers: the headers of its request.
    """

    def __init__(self, question: str, reads: int = 1_000, headers: Mapping[str, str] | None = None) -> None:
        self._sent = False
        self._question = question
        self._headers = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self._reads = reads
        self._left = anyio.Event()
        self._news = anyio.Event()
        self.messages: list[Message] = []

    @property
    def status(self) -> int:
        """The status of the response."""
        status: int = self.messages[0]["status"]
        return status

    @property
    def body(self) -> str:
        """What it has received of the body."""
        return b"".join(each.get("body", b"") for each in self.messages).decode()

    async def get(self, app: Starlette) -> None:
        """Send the question to an application."""
        async with app.router.lifespan_context(app) as state:
            scope = {
                "type": "http",
                "method": "POST",
                "path": "/answer",
                "query_string": b"",
                "headers": self._headers,
                "state": dict(state or {}),
            }
            with anyio.fail_after(SECONDS):
                await app(scope, self._receive, self._send)

    async def has(self, text: str) -> None:
        """Wait until the body contains this."""
        while text not in self.body:
            self._news = anyio.Event()
            await self._news.wait()

    def leave(self) -> None:
        """Close the connection."""
        self._left.set()

    async def _receive(self) -> Message:
        if self._sent:
            await self._left.wait()
            return {"type": "http.disconnect"}
        self._sent = True
        return {"type": "http.request", "body": self._question.encode(), "more_body": False}

    async def _send(self, message: Message) -> None:
        if len(self.messages) == self._reads:
            await anyio.sleep_forever()
        self.messages.append(message)
        self._news.set()
