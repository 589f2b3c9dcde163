"""The last steps of a run, each of which replaces a file at once: failures that still stand, and the input's order."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path

from chatscope.batch.digests import SIZE, DigestTable, pair_digest, text_digest
from chatscope.batch.journal import Journal
from chatscope.batch.scan import CHUNK, key_of, recorded_lines


def rewrite_errors(journal: Journal) -> int:
    """Leave in the errors file what still fails: the latest failure of each request that has not succeeded since.

    Blocks. Reads the outputs once more, if there are failures. Returns how many still stand.

    Raises:
        OSError: the disk is full, or failed; the file is then as before.
    """
    errors = journal.paths.errors
    if not errors.stat().st_size:
        return 0
    succeeded = DigestTable()
    for _, _, line in recorded_lines(journal.paths.output):
        if not line.failed:
            succeeded.add(pair_digest(line.custom_id, key_of(line)))
    latest: dict[bytes, int] = {}
    lines = 0
    for _, offset, line in recorded_lines(errors):
        lines += 1
        pair = pair_digest(line.custom_id, key_of(line))
        if pair not in succeeded:
            latest.pop(pair, None)
            latest[pair] = offset
    if len(latest) < lines:
        _copy_lines(errors, errors.with_name(errors.name + ".tmp"), latest.values())
        journal.replace("errors", errors.with_name(errors.name + ".tmp"))
    return len(latest)


def reorder(journal: Journal, ids: Iterable[bytes]) -> None:
    """Bring the output into the order of the input. Blocks; 40 bytes of memory a line.

    Args:
        journal: the journal, with nothing being appended.
        ids: the digests of the input's ids, in the order of its rows. Lines of other ids go to the end.

    Raises:
        OSError: as `rewrite_errors`.
    """
    output = journal.paths.output
    places = sorted(
        text_digest(line.custom_id) + offset.to_bytes(8, "big") for _, offset, line in recorded_lines(output)
    )
    ordered: list[int] = []
    for digest in ids:
        at = bisect_left(places, digest)
        while at < len(places) and places[at][:SIZE] == digest:
            ordered.append(int.from_bytes(places[at][SIZE:], "big"))
            at += 1
    placed = set(ordered)
    ordered += sorted(at for place in places if (at := int.from_bytes(place[SIZE:], "big")) not in placed)
    temporary = output.with_name(output.name + ".tmp")
    _copy_lines(output, temporary, ordered)
    journal.replace("output", temporary)


def _copy_lines(source: Path, target: Path, offsets: Iterable[int]) -> None:
    with source.open("rb", CHUNK) as lines, target.open("wb", CHUNK) as copy:
        for offset in offsets:
            lines.seek(offset)
            copy.write(lines.readline())
        copy.flush()
        os.fsync(copy.fileno())
