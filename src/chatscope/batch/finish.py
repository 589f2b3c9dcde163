"""Steps that replace a whole file: drop superseded failures, sort the output, remove unreadable lines."""

from __future__ import annotations

import os
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from chatscope.batch.digests import DigestTable, OffsetTable, pair_digest, text_digest
from chatscope.batch.journal import Journal, Paths
from chatscope.batch.records import INVALID_LINE, RecordedLine, is_record
from chatscope.batch.replacing import write_durably
from chatscope.batch.scan import CHUNK, Recorded, key_of, outcome_digest, read_superseded, recorded_lines

_SMALL: Final = 1 << 14
"""The buffer for reading lines in random order. It is refilled for each line, so it is small."""


def standing_failures(paths: Paths, is_superseded: Callable[[RecordedLine, bytes], bool]) -> dict[bytes, int]:
    """Return the offsets in the errors file of the latest failure of each pair that is not superseded.

    Raises:
        JournalError: a line is not a record.
        OSError: the file cannot be read.
    """
    latest: dict[bytes, int] = {}
    for _, offset, line in recorded_lines(paths.errors):
        pair = pair_of(line)
        latest.pop(pair, None)  # the later one goes to the end
        if line.failed and not is_superseded(line, pair):
            latest[pair] = offset
    return latest


def successes(path: Path) -> DigestTable:
    """Return the pairs that have succeeded, and their ids. Blocks, and reads the whole output.

    The ids are the pairs of failures without a key, which other tools recorded.

    Raises:
        JournalError, OSError: as `standing_failures`.
    """
    found = DigestTable()
    for _, _, line in recorded_lines(path):
        if not line.failed:
            add_success(found, line)
    return found


def add_success(found: DigestTable, line: RecordedLine) -> None:
    """Add what a success supersedes: the pair that it records, and its id."""
    id_digest = text_digest(line.custom_id)
    found.add(pair_digest(id_digest, key_of(line)))
    found.add(id_digest)


def pair_of(line: RecordedLine) -> bytes:
    """Return the pair of id and key that a line records."""
    return pair_digest(text_digest(line.custom_id), key_of(line))


@dataclass(frozen=True, slots=True)
class CurrentRows:
    """What is known of the rows of an input.

    Attributes:
        invalid: the keys of the invalid ones.
        superseding: as in `Judge`.
        of_file: whether they are those of a whole file. Other sources may be parts of the batch.
    """

    invalid: Collection[bytes]
    superseding: Collection[bytes]
    of_file: bool


class Supersession:
    """Decides which recorded failures are superseded.

    Args:
        recorded: what earlier runs recorded.
        runs: all names of this run: each part of a sharded run has its own.
        outcomes: the ids for which this run has recorded an outcome.
        rows: what is known of the input's rows, if all of them were read.
        later: the pairs that have succeeded since, if this run itself may have sent them again.
    """

    def __init__(
        self,
        recorded: Recorded,
        runs: Collection[str],
        outcomes: DigestTable,
        rows: CurrentRows | None,
        later: DigestTable | None = None,
    ) -> None:
        self._recorded = recorded
        self._runs = runs
        self._later = later
        self._outcomes = outcomes
        self._rows = rows

    def __call__(self, line: RecordedLine, pair: bytes) -> bool:
        """Return whether a later outcome replaces a failure."""
        if self._later is not None and pair in self._later:
            return True
        if line.chatscope.run in self._runs:
            return False
        recorded, id_digest = self._recorded, text_digest(line.custom_id)
        if pair in recorded.settled and pair not in recorded.failed:
            return True
        if id_digest in self._outcomes:  # of the same request, or of the request that replaced it
            return True
        return self._rows is not None and self._was_changed(self._rows, line, id_digest)

    @staticmethod
    def _was_changed(rows: CurrentRows, line: RecordedLine, id_digest: bytes) -> bool:
        """Return whether a row was changed after a failure: a run may have been killed before it removed the line."""
        if line.error_class == INVALID_LINE:
            if key_of(line) in rows.invalid:
                return False
            if rows.of_file:
                return True
        return id_digest in rows.superseding


def rewrite_errors(journal: Journal, is_superseded: Callable[[RecordedLine, bytes], bool]) -> int:
    """Remove superseded failures from the errors file, and return how many lines remain. Blocks.

    The costs of the removed lines are stored elsewhere, because they count against `max_cost`.

    Raises:
        JournalError: a line is not a record.
        OSError: the disk is full, or failed; the file is then as before.
    """
    errors = journal.paths.errors
    if not errors.stat().st_size:
        return 0
    latest = standing_failures(journal.paths, is_superseded)
    kept, lines = set(latest.values()), 0
    others: list[int] = []  # successes, which somebody moved here
    superseded: dict[str, float] = {}
    for _, offset, line in recorded_lines(errors):
        lines += 1
        if not line.failed:
            others.append(offset)
        elif offset not in kept and line.chatscope.cost_usd:
            superseded[outcome_digest(pair_of(line), line.chatscope.run).hex()] = line.chatscope.cost_usd
    if superseded:
        content = msgspec.json.encode(read_superseded(journal.paths) | superseded)
        write_durably(journal.paths.superseded, content)
    if len(others) + len(latest) < lines:
        journal.replace("errors", _lines_at(errors, [*others, *latest.values()]))
    return len(latest)


def reorder(journal: Journal, ids: Iterable[bytes]) -> None:
    """Sort the output in the order of the input. Blocks. Needs 40 bytes of memory per line.

    Args:
        journal: the journal, with nothing being appended.
        ids: the digests of the input's ids, in the order of its rows. Lines of other ids go to the end.

    Raises:
        OSError: as `rewrite_errors`.
    """
    output = journal.paths.output
    places, everything = OffsetTable(), array("Q")
    for _, offset, line in recorded_lines(output):
        places.add(text_digest(line.custom_id), offset)
        everything.append(offset)
    ordered = array("Q")
    for digest in ids:
        ordered.extend(places.offsets(digest))
    placed = iter(array("Q", sorted(ordered)))
    following = next(placed, None)
    for offset in everything:
        if offset == following:
            following = next(placed, None)
        else:
            ordered.append(offset)
    if ordered != everything:
        journal.replace("output", _lines_at(output, ordered))


def set_bad_lines_aside(journal: Journal) -> None:
    """Move the lines that are not records from the outputs to `torn.jsonl`. Blocks.

    Raises:
        OSError: as `rewrite_errors`.
    """
    for name, path in (("output", journal.paths.output), ("errors", journal.paths.errors)):
        bad = 0
        with path.open("rb", CHUNK) as file, journal.paths.torn.open("ab") as torn:
            for data in _unmarked(file):
                if data.strip() and not is_record(data):
                    torn.write(data)
                    bad += 1
            torn.flush()
            os.fsync(torn.fileno())
        if bad:
            journal.replace(name, _records(path))
            journal.notices.append(f"{path.name}: {bad} lines are not records; they are kept in {journal.paths.torn}")


def _records(path: Path) -> Iterator[bytes]:
    with path.open("rb", CHUNK) as file:
        for data in _unmarked(file):
            if is_record(data):
                yield data


def _unmarked(lines: Iterable[bytes]) -> Iterator[bytes]:
    for number, data in enumerate(lines):
        yield data if number else data.removeprefix(BOM_UTF8)


def _lines_at(path: Path, offsets: Iterable[int]) -> Iterator[bytes]:
    with path.open("rb", _SMALL) as lines:
        for offset in offsets:
            if lines.tell() != offset:
                lines.seek(offset)
            yield lines.readline()
