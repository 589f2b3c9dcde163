"""The messages between the process that runs a load test and its workers, as frames of bytes on their pipes.

The parent's orders are pickled, because both ends are this package and nothing else uses the pipe. A worker's messages
are msgpack, which costs the worker little. Not here: when they are sent (`processes`, `process_worker`).
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from chatscope.load.planned import LoadStage, PlannedRequest
from chatscope.load.records import RequestRecord
from chatscope.load.schedule import WorkShare
from chatscope.load.setup import RunSetup
from chatscope.load.verdict import WorkerEvidence
from chatscope.load.worker_loops import WorkerLoop

LENGTH: Final = struct.Struct(">Q")

# -- from the parent ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BeginRun:
    """The first order: the values that all workers share, this worker's part, and its event loop."""

    setup: RunSetup
    share: WorkShare
    loop: WorkerLoop


@dataclass(frozen=True, slots=True)
class PrepareStage:
    """Encode the first requests of a stage. `requests` is `None` in a closed loop without a limit of requests."""

    stage: LoadStage
    requests: tuple[PlannedRequest, ...] | None


@dataclass(frozen=True, slots=True)
class StartStage:
    """Start the prepared stage at a time (`time.perf_counter_ns`, a clock that all processes share)."""

    started_ns: int


@dataclass(frozen=True, slots=True)
class StopStage:
    """Send nothing more, and give running requests a number of seconds."""

    grace: float


Order: TypeAlias = BeginRun | PrepareStage | StartStage | StopStage

# -- from a worker -----------------------------------------------------------------------------------------------------


class StagePrepared(msgspec.Struct, tag=True):
    """The stage can start."""


class RequestEnded(msgspec.Struct, tag=True):
    """A request has ended. The counts are of the stage so far."""

    record: RequestRecord
    dispatched: int
    running: int


class StageEnded(msgspec.Struct, tag=True):
    """All requests of the stage have ended; all were reported."""

    evidence: WorkerEvidence


class StageFailed(msgspec.Struct, tag=True):
    """The stage cannot run, because a file or a parameter is invalid."""

    message: str


WorkerMessage: TypeAlias = StagePrepared | RequestEnded | StageEnded | StageFailed

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[WorkerMessage]] = msgspec.msgpack.Decoder(WorkerMessage)


def encode_order(order: Order) -> bytes:
    """Return an order as a frame.

    Raises:
        ValueError: the plan contains a value that cannot be passed to another process.
    """
    try:
        return _framed(pickle.dumps(order))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise _refusal(error) from error


def decode_order(data: bytes) -> Any:
    """Return the order of a frame.

    Raises:
        ValueError: it contains a value whose class this process cannot import.
    """
    try:
        return pickle.loads(data)  # noqa: S301 - the parent wrote it
    except Exception as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> ValueError:
    return ValueError(f"the plan cannot be handed to worker processes: {error}; give it plain values")


def encode_message(message: WorkerMessage) -> bytes:
    """Return a worker's message as a frame."""
    return _framed(_ENCODER.encode(message))


class MessageFrames:
    """Reassembles a worker's frames, however the pipe split them."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> Iterator[WorkerMessage]:
        """Yield the messages that this data completes."""
        received = self._received
        received += data
        start = 0
        while len(received) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(received, start)
            end = start + LENGTH.size + length
            if end > len(received):
                break
            yield _DECODER.decode(received[start + LENGTH.size : end])
            start = end
        del received[:start]


def _framed(data: bytes) -> bytes:
    return LENGTH.pack(len(data)) + data
