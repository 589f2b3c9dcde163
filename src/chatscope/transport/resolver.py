"""Resolves host names to addresses.

Here: which addresses to try, and in which order. Not here: trying them (`connect`). The system's resolver cannot be
interrupted, so it runs in threads that are never waited for. So a name server that hangs delays neither a deadline nor
the end of the program; with asyncio's own executor, it would. Each name is looked up once at a time, for all
connections.
"""

from __future__ import annotations

import socket
from copy import copy
from itertools import chain, zip_longest
from time import monotonic
from typing import Any, TypeAlias

import anyio

from chatscope.transport.streams import current_run, start_thread

__all__ = ["Resolver"]

Address: TypeAlias = tuple[int, Any]
"""A family, and an address of the form that the family wants."""

# Seconds after which a second lookup of the same name starts while the first one hangs: glibc's own timeout.
LOOKUP_PATIENCE = 5.0


class _Lookup:
    """One call of the system's resolver, and an event for the tasks that wait for it."""

    def __init__(self, host: str, port: int) -> None:
        self.started = monotonic()
        self.done = anyio.Event()
        self.found: list[Address] = []
        self.error: Exception | None = None
        self._host = host
        self._port = port

    def run(self) -> None:
        """Call the resolver, in a thread."""
        try:
            self.found = _addresses(self._host, self._port)
        except Exception as exc:  # noqa: BLE001 - raised again in the tasks that wait
            self.error = exc.with_traceback(None)


class Resolver:
    """Looks up host names within one run of one event loop."""

    def __init__(self) -> None:
        self._lookups: dict[tuple[str, int], _Lookup] = {}

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return the addresses of `host` in the order in which to try them: RFC 8305, section 4.

        If cancelled, the lookup continues for other waiters. Raises `OSError` (`socket.gaierror`) or `ValueError`.
        """
        try:
            # A literal address needs no resolver, and no thread.
            return _addresses(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass
        lookup = self._lookups.get((host, port))
        if lookup is None or monotonic() - lookup.started > LOOKUP_PATIENCE:
            lookup = self._start(host, port)
        await lookup.done.wait()
        if lookup.error is not None:
            raise copy(lookup.error)  # each task needs its own, for its traceback
        return lookup.found

    def _start(self, host: str, port: int) -> _Lookup:
        lookup = self._lookups[host, port] = _Lookup(host, port)

        def finish() -> None:
            if self._lookups.get((host, port)) is lookup:
                del self._lookups[host, port]
            lookup.done.set()

        start_thread(current_run(), lookup.run, finish)
        return lookup


def _addresses(host: str, port: int, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    first = [(family, address) for family, _, _, _, address in found if family == found[0][0]]
    others = [(family, address) for family, _, _, _, address in found if family != found[0][0]]
    return [pair for pair in chain.from_iterable(zip_longest(first, others)) if pair is not None]
