"""The event loops that a worker or a command can run on, by name, with anyio's names for them."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, get_args

WorkerLoop: TypeAlias = Literal["asyncio", "uvloop", "trio"]

WORKER_LOOPS: Final[tuple[str, ...]] = get_args(WorkerLoop)


def anyio_backend_of(loop: str) -> tuple[str, dict[str, Any]]:
    """Return the backend and its options for `anyio.run`."""
    return ("trio", {}) if loop == "trio" else ("asyncio", {"use_uvloop": loop == "uvloop"})
