"""What earlier runs recorded: the outputs read once, as a stream, into tables of digests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from chatscope.batch.digests import SIZE, DigestTable, pair_digest, text_digest
from chatscope.batch.errors import JournalError
from chatscope.batch.journal import Paths, sync_folder
from chatscope.batch.records import RecordedLine, decode_line

CHUNK: Final = 1 << 22
CHECKED: Final = 4096
"""Lines between two looks at whether to go on: some milliseconds."""


class Recorded:
    """What is recorded in the outputs of earlier runs.

    Args:
        retry_errors: as in `BatchOptions`: which permanent failures count as not done.
        with_offsets: keep where each key's success stands, for `dedup`.

    Attributes:
        settled: the pairs of id and key that need not be asked again.
        ids: the ids that have a success or a permanent failure.
        sources: the digests of settled lines as they stand in the input.
        keyless: the ids of lines without a key, which other tools wrote: there the id alone tells.
        succeeded: how many lines are successes.
        failures: how many failures stand in the files, by class.
        cost: what the recorded lines cost, in US dollars, where that is known.
        unpriced: how many recorded lines have no known cost.
        lines: how many lines were read so far; another thread may look.
        offsets: by key, where its success stands.
    """

    def __init__(self, *, retry_errors: bool | str = False, with_offsets: bool = False) -> None:
        self._retry = retry_errors
        self.settled = DigestTable()
        self.ids = DigestTable()
        self.keyless = DigestTable()
        self.sources = DigestTable()
        self.succeeded = 0
        self.failures: Counter[str] = Counter()
        self.cost = 0.0
        self.unpriced = 0
        self.lines = 0
        self.offsets: dict[bytes, int] | None = {} if with_offsets else None
        self._successes = DigestTable()

    def read(self, paths: Paths, *, check: Callable[[], None], repair: bool = False) -> None:
        """Read what is recorded. Blocks; a million lines take some seconds.

        Args:
            paths: where it stands.
            check: called now and then; what it raises ends the reading.
            repair: set lines that cannot be read aside.

        Raises:
            JournalError: a line cannot be read, and `repair` was not asked for.
        """
        for path in (paths.output, paths.errors):
            if repair:
                _set_bad_lines_aside(path, paths.torn)
            for _, offset, line in recorded_lines(path):
                self._add(line, offset)
                if not self.lines % CHECKED:
                    check()

    def _add(self, line: RecordedLine, offset: int) -> None:
        self.lines += 1
        facts = line.chatscope
        if facts.cost_usd is not None:
            self.cost += facts.cost_usd
        elif not line.failed:
            self.unpriced += 1
        key = key_of(line)
        pair = pair_digest(line.custom_id, key)
        if line.failed:
            if pair in self._successes:
                return  # a later run has succeeded, and was stopped before its last step
            self.failures[line.error_class] += 1
            if not line.is_permanent or self._retry is True or self._retry == line.error_class:
                return
        else:
            self.succeeded += 1
            self._successes.add(pair)
            if self.offsets is not None:
                self.offsets[key] = offset
        self.settled.add(pair)
        if line.chatscope.source:
            self.sources.add(_digest(line.chatscope.source))
        (self.ids if key else self.keyless).add(text_digest(line.custom_id))


def recorded_lines(path: Path) -> Iterator[tuple[int, int, RecordedLine]]:
    """Iterate over a recorded file: line number, offset and line.

    Raises:
        JournalError: a line is no record; the message names it.
    """
    if not path.exists():
        return
    offset = number = 0
    with path.open("rb", CHUNK) as file:
        for data in file:
            number += 1
            if data.strip():
                try:
                    line = decode_line(data)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    raise JournalError(
                        f"{path}: line {number} is not a record: {error}; --repair sets such lines aside"
                    ) from error
                yield number, offset, line
            offset += len(data)


def key_of(line: RecordedLine) -> bytes:
    """Return the key of a line, or nothing for a line that another tool wrote."""
    return _digest(line.chatscope.key)


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    return digest if len(digest) == SIZE else b""


def _set_bad_lines_aside(path: Path, aside: Path) -> None:
    """Rewrite a file without the lines that are no records; those are appended to `aside`."""
    if not path.exists():
        return
    temporary = path.with_name(path.name + ".tmp")
    bad = 0
    with path.open("rb", CHUNK) as file, temporary.open("wb", CHUNK) as kept, aside.open("ab") as torn:
        for data in file:
            try:
                decode_line(data)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                torn.write(data)
                bad += bool(data.strip())
            else:
                kept.write(data)
        kept.flush()
    if bad:
        temporary.replace(path)
        sync_folder(path.parent)
    else:
        temporary.unlink()


def started_without_record(paths: Paths, recorded: Recorded) -> int:
    """Return how many requests were sent, or about to be, and have no outcome: they may have been paid for."""
    open_pairs = set()
    if paths.started.exists():
        for line in paths.started.read_bytes().splitlines():
            key, _, custom_id = line.partition(b" ")
            try:
                pair = pair_digest(msgspec.json.decode(custom_id, type=str), bytes.fromhex(key.decode()))
            except (ValueError, msgspec.MsgspecError):
                continue  # the last line, cut
            if pair not in recorded.settled:
                open_pairs.add(pair)
    return len(open_pairs)
