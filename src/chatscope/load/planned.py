"""What a plan consists of: its stages, and the requests of each. Plain values, which worker processes receive.

Not here: how they follow from the settings (`plan`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chatscope.load.prompts import PromptSource
from chatscope.load.schedule import OpenLoop


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request of a stage: its number in the stage, when it is due, and its content.

    `offset` is in nanoseconds from the start of the stage. In a closed loop it is `None`: a request is due when a slot
    is free. `later` has the other turns of its session. Each is due when the previous response has ended and the think
    time has passed.
    """

    index: int
    offset: int | None
    source: PromptSource
    session: str | None = None
    later: tuple[PlannedRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadStage:
    """One load, sustained for a while: a number of slots, a rate, or a trace.

    `repetition` is how many stages before it had the same load.
    """

    index: int
    concurrency: int | None = None
    shape: OpenLoop | None = None
    trace: Path | None = None
    repetition: int = 0

    @property
    def name(self) -> str:
        """The load in words; no two stages of a run have the same."""
        again = f" ({self.repetition + 1})" if self.repetition else ""
        if self.concurrency is not None:
            return f"concurrency {self.concurrency}{again}"
        return f"trace {self.trace.name}" if self.trace is not None else f"rate {self.rate:g}{again}"

    @property
    def rate(self) -> float | None:
        """Requests per second of an open loop; `None` for others."""
        return None if self.shape is None else self.shape.rate
