"""Reads the records of earlier runs: the outputs are read once, as a stream, into tables of digests."""

from __future__ import annotations

from array import array
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from chatscope.batch.digests import SIZE, DigestTable, pair_digest, text_digest
from chatscope.batch.errors import JournalError
from chatscope.batch.journal import Paths, check_regular
from chatscope.batch.records import INVALID_LINE, RecordedLine, decode_line

CHUNK: Final = 1 << 22
CHECKED: Final = 4096
"""Lines between two checks for cancellation: a few milliseconds."""


class Recorded:
    """The records in the outputs of earlier runs.

    Args:
        retry_errors: as in `BatchOptions`: which permanent failures count as not done.
        with_offsets: store the offset of each key's success, for `dedup`.

    Attributes:
        settled: the pairs of id and key that need not be sent again.
        failed: those of them that are permanent failures.
        ids: the ids that have a success or a permanent failure.
        failed_ids: those of them that have no success.
        doubtful: the ids with a success and a failure of different requests. The input says which is the current one.
        sources: the digests of the input lines that succeeded.
        keyless: the ids of lines without a key, which other tools wrote. Only the id identifies them.
        succeeded: how many lines are successes.
        failures: how many requests still fail, by class.
        cost: the known cost of the recorded lines, in US dollars.
        unpriced: how many recorded outcomes have no known cost.
        lines: how many lines have been read so far. Another thread may read this.
        offsets: the offset of each key's success.
    """

    def __init__(self, *, retry_errors: bool | str = False, with_offsets: bool = False) -> None:
        self._retry = retry_errors
        self.settled = DigestTable()
        self.failed = DigestTable()
        self.ids = DigestTable()
        self.failed_ids = DigestTable()
        self.doubtful: set[bytes] = set()
        self.keyless = DigestTable()
        self.sources = DigestTable()
        self.succeeded = 0
        self.failures: Counter[str] = Counter()
        self.cost = 0.0
        self.unpriced = 0
        self.lines = 0
        self.offsets: dict[bytes, int] | None = {} if with_offsets else None
        self._failures = _Failures()

    def read(self, paths: Paths, *, check: Callable[[], None]) -> None:
        """Read the records. Blocks, for a few seconds per million lines.

        Args:
            paths: the paths of the output.
            check: called now and then; an exception from it ends the reading.

        Raises:
            JournalError: a line cannot be read.
            OSError: a file cannot be read.
        """
        for path in (paths.output, paths.errors):
            for _, offset, line in recorded_lines(path):
                self._add(line, offset)
                if not self.lines % CHECKED:
                    check()
        self._settle_failures()
        for outcome, cost in read_superseded(paths).items():
            if bytes.fromhex(outcome) not in self._failures.outcomes:  # else its line is still there: a kill
                self.cost += cost

    @property
    def settles_nothing(self) -> bool:
        """Whether no row can be recorded, neither as it is nor with another request."""
        return not (len(self.settled) or len(self.ids) or len(self.keyless))

    def has_failed_in(self, run: str, pair: bytes) -> bool:
        """Return whether a run has recorded a failure of a request."""
        return outcome_digest(pair, run) in self._failures.outcomes

    def _add(self, line: RecordedLine, offset: int) -> None:
        self.lines += 1
        facts = line.chatscope
        has_failed = line.failed
        if facts.cost_usd is not None:
            self.cost += facts.cost_usd
        elif line.is_unpriced:
            self.unpriced += 1
        key, id_digest = _digest(facts.key), text_digest(line.custom_id)
        pair = pair_digest(id_digest, key)
        if has_failed:
            self._failures.add(pair, id_digest if key else b"", line)
            return
        self.succeeded += 1
        self.settled.add(pair)
        if not key:
            self.keyless.add(id_digest)
            return
        self.ids.add(id_digest)
        if facts.source:
            self.sources.add(_digest(facts.source))
        if self.offsets is not None:
            self.offsets[key] = offset

    def _settle_failures(self) -> None:
        """Count the failures that no success supersedes, and settle the permanent ones."""
        rejects: list[bytes] = []
        # Without a key, the pair is the id's digest: any success of that id is a later one.
        standing = [
            found for found in self._failures.latest() if found[0] not in self.settled and found[0] not in self.ids
        ]
        for pair, id_digest, error_class, is_permanent in standing:
            self.failures[error_class] += 1
            if id_digest in self.ids:
                self.doubtful.add(id_digest)
            if is_permanent and self._retry is not True and self._retry != error_class:
                self.settled.add(pair)
                self.failed.add(pair)
                if not any(id_digest):
                    self.keyless.add(pair)  # without a key, it is the id's digest
                elif error_class != INVALID_LINE:  # the row was invalid, and may have been corrected
                    rejects.append(id_digest)
        for id_digest in rejects:
            if id_digest not in self.ids:
                self.failed_ids.add(id_digest)
        for id_digest in rejects:
            self.ids.add(id_digest)


class _Failures:
    """Recorded failures, 50 bytes each, until it is known which of them are superseded."""

    def __init__(self) -> None:
        self.outcomes = DigestTable()
        self._digests = bytearray()
        self._kinds: array[int] = array("L")
        self._classes: dict[tuple[str, bool], int] = {}

    def add(self, pair: bytes, id_digest: bytes, line: RecordedLine) -> None:
        self.outcomes.add(outcome_digest(pair, line.chatscope.run))
        self._digests += pair + (id_digest or bytes(SIZE))
        self._kinds.append(self._classes.setdefault((line.error_class, line.is_permanent), len(self._classes)))

    def latest(self) -> Iterator[tuple[bytes, bytes, str, bool]]:
        """Iterate over the latest failure of each request: pair, id, class, and whether it is permanent."""
        classes = list(self._classes)
        seen = set()
        for number in reversed(range(len(self._kinds))):
            at = number * 2 * SIZE
            pair = bytes(self._digests[at : at + SIZE])
            if pair not in seen:
                seen.add(pair)
                yield pair, bytes(self._digests[at + SIZE : at + 2 * SIZE]), *classes[self._kinds[number]]


def recorded_lines(path: Path) -> Iterator[tuple[int, int, RecordedLine]]:
    """Iterate over a recorded file: line number, offset and line. An incomplete last line is skipped.

    Raises:
        JournalError: a line is not a record; the message names it.
        OSError: the file cannot be read.
    """
    check_regular(path)
    if not path.exists():
        return
    offset = number = 0
    with path.open("rb", CHUNK) as file:
        for data in file:
            number += 1
            if number == 1 and data.startswith(BOM_UTF8):
                data, offset = data[len(BOM_UTF8) :], len(BOM_UTF8)  # noqa: PLW2901 - the line itself
            try:
                line = decode_line(data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                if not data.endswith(b"\n"):
                    return
                if data.strip():
                    raise JournalError(
                        f"{path}: line {number} is not a record: {error};"
                        " `chatscope batch run --repair` sets such lines aside"
                    ) from error
            else:
                yield number, offset, line
            offset += len(data)


def whole_line(file: BinaryIO, path: Path) -> dict[str, Any]:
    """Return the line at a file's position with its body, which `recorded_lines` skips.

    Raises:
        JournalError: the body is damaged.
    """
    at = file.tell()
    try:
        line: dict[str, Any] = msgspec.json.decode(file.readline())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise JournalError(f"{path}: the line at byte {at} is damaged: {error}") from error
    return line


def outcome_digest(pair: bytes, run: str) -> bytes:
    """Return the digest of a request's outcome in one run. There is at most one."""
    return pair_digest(text_digest(run), pair)


def read_superseded(paths: Paths) -> dict[str, float]:
    """Return the costs of failures that a later outcome replaced, by the outcome's digest in hexadecimal.

    Raises:
        JournalError: the file is damaged.
    """
    check_regular(paths.superseded)
    try:
        costs = msgspec.json.decode(paths.superseded.read_bytes(), type=dict[str, float])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise JournalError(f"{paths.superseded}: cannot be read: {error}") from error
    if not all(_digest(outcome) for outcome in costs):
        raise JournalError(f"{paths.superseded}: cannot be read: a name in it is not a digest")
    return costs


def key_of(line: RecordedLine) -> bytes:
    """Return the key of a line, or nothing for a line that another tool wrote."""
    return _digest(line.chatscope.key)


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    return digest if len(digest) == SIZE else b""


def started_without_record(paths: Paths, recorded: Recorded) -> int:
    """Return how many requests the last run sent, or was about to send, without recording an outcome.

    They may have been paid for. Blocks, for a second per million lines.
    """
    open_pairs = set()
    check_regular(paths.started)
    if paths.started.exists():
        with paths.started.open("rb", CHUNK) as file:
            run = file.readline().removeprefix(b"run ").strip().decode(errors="replace")
            for line in file:
                pair = _digest(line[: 2 * SIZE].decode(errors="replace"))
                if pair and pair not in recorded.settled and not recorded.has_failed_in(run, pair):
                    open_pairs.add(pair)
    return len(open_pairs)
