"""AsyncBasePlatformAdapter: the abstract base of all adapters, and how task ids are made."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count
from types import TracebackType
from typing import Any, Final, Self

from chatscope._tasks.models import Platform, Result, Task, TaskStatus

SECONDS_A_DAY: Final = 86_400


class AsyncBasePlatformAdapter(ABC):
    """Runs tasks on one platform, within an `async with` block.

    A platform implements the five lifecycle methods, `implementation_status` and the block. None of them may swallow
    its caller's cancellation.
    """

    platform: Platform
    """The platform; its value begins every task id."""

    def __init__(self) -> None:
        self._numbers = count(secrets.randbits(32))
        self._day = -1
        self._prefix = ""

    @property
    def is_implemented(self) -> bool:
        """Whether the adapter can be used."""
        return True

    @property
    @abstractmethod
    def implementation_status(self) -> str:
        """One word: `working`, or the reason why the adapter cannot be used."""

    @abstractmethod
    async def submit_task(self, task: Task) -> str:
        """Accept a task and return its id at once. The task runs in the background, even if the caller is cancelled."""

    @abstractmethod
    async def get_status(self, task_id: str) -> TaskStatus:
        """Return a task's status, without waiting."""

    @abstractmethod
    async def get_result(self, task_id: str, timeout: float = 300) -> Result:  # noqa: ASYNC109 - the contract's own argument
        """Return a task's result, waiting for it if necessary. Cancelling the wait leaves the task running.

        Args:
            task_id: the id that `submit_task` returned.
            timeout: how long to wait, in seconds.
        """

    @abstractmethod
    def stream_result(self, task_id: str) -> AsyncIterator[str]:
        """Iterate over a task's text, live while it runs."""

    @abstractmethod
    async def cancel_task(self, task_id: str) -> bool:
        """Stop a task. Return whether it was pending or running. Cancelling this call still stops the task."""

    def get_adapter_status(self) -> dict[str, Any]:
        """Describe the adapter, and whether it can be used."""
        return {
            "name": type(self).__name__,
            "platform": self.platform.value,
            "is_implemented": self.is_implemented,
            "status": self.implementation_status,
        }

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Prepare to run tasks."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Wait for the tasks, or cancel them if the block ends by an exception."""

    def _generate_task_id(self) -> str:
        """Return an id `<platform>_<YYYYMMDD>_<8 hex digits>` (the date in UTC).

        The digits count up from a random start, so ids are unique for 2**32 tasks.
        """
        day = int(time.time()) // SECONDS_A_DAY
        if day != self._day:  # formatting a date costs more than the rest
            self._day = day
            date = datetime.fromtimestamp(day * SECONDS_A_DAY, UTC)
            self._prefix = f"{self.platform.value}_{date:%Y%m%d}_"
        return f"{self._prefix}{next(self._numbers) % 2**32:08x}"
