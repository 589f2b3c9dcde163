"""What the rarely read fields of a `Result`, and the state of a finished task, are built from when they are asked for.

Results are kept by the thousand, and Python's garbage collector looks at all of them again and again. So there are only
texts, bytes and numbers here, which it need not look at.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

import msgspec

from chatscope._client.completion import ReceivedBody
from chatscope._client.timings import Timings
from chatscope._limits.attempts import Attempt, AttemptRecord
from chatscope.protocol.response import Completion

LENGTHS: Final = "I"
"""The type of the array in which the lengths of text parts are stored."""

TIMES: Final = "q"
"""The type of the array in which times are stored."""


class Unbuilt(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a task's run beside the fields of its result.

    Attributes:
        submitted_ns, started_ns, sent_ns, finished_ns: as in `Timings`.
        token_ns: the same, as the bytes of an array; `None` if no stream was read.
        record: the record of the request that delivered, or else of the last one.
        attempts: the records of the requests that were sent, for `attempts_log`.
        model: for `metadata`.
        prompt: the only message of `messages`; `None` if the result has its messages.
        body: what `completion` and `message` are decoded from; `None` if the result has them.
        part_lengths: how the text was divided into parts, as the bytes of an array; empty if it was not.
        steps: the completions of the turns; empty for a task of one turn.
    """

    submitted_ns: int
    started_ns: int | None
    sent_ns: int | None
    token_ns: bytes | None
    finished_ns: int | None
    record: AttemptRecord
    attempts: tuple[AttemptRecord, ...]
    model: str
    prompt: str | None
    body: ReceivedBody | None
    part_lengths: bytes
    steps: tuple[Completion, ...]

    def timings(self) -> Timings:
        """Return the task's timings."""
        return Timings(
            self.submitted_ns,
            self.started_ns,
            self.sent_ns,
            self.record.headers_ns,
            () if self.token_ns is None else array(TIMES, self.token_ns),
            self.finished_ns,
            self.record.written_ns,
            self.record.connect_ns,
        )

    def attempts_log(self) -> tuple[Attempt, ...]:
        """Return the log of the requests that were sent."""
        return tuple([record.attempt(self.submitted_ns) for record in self.attempts])

    def parts(self, text: str) -> Sequence[str]:
        """Return the parts in which a text arrived."""
        if not self.part_lengths:
            return (text,) if text else ()
        ends = accumulate(array(LENGTHS, self.part_lengths), initial=0)
        return tuple([text[start:end] for start, end in pairwise(ends)])


def lengths_of(parts: Sequence[str]) -> bytes:
    """Return what `Unbuilt` stores of several text parts."""
    return array(LENGTHS, map(len, parts)).tobytes()
