"""Decides which rows of an input to send: not the recorded ones, and none if the input is invalid.

A file is read once before anything is sent (`FilePlan`). Standard input and iterables cannot be read twice, so each of
their rows is judged when it is read (`StreamPlan`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import chain, islice
from typing import Final

import msgspec

from chatscope import Task
from chatscope.batch.digests import SIZE, DigestTable, pair_digest, text_digest
from chatscope.batch.errors import InputError, LineError
from chatscope.batch.judging import ChangedError, Judge, Occurrences
from chatscope.batch.options import BatchOptions
from chatscope.batch.readers import InputRow, Reader
from chatscope.batch.requests import BatchRequest, ParsedRow, RowParser, unnamed_id
from chatscope.batch.scan import CHECKED

EDITED: Final = "the input was changed while it was being run; run the same command again to send the new rows"

TODO: Final = 0
SETTLED: Final = 1

_NAMED: Final = b"n"
_UNNAMED: Final = b"u"
_KNOWN: Final = b"k"
_NEW: Final = b"w"
"""A row that is not looked up: an invalid one, or one with an id where no row is recorded."""


class FilePlan:
    """What to do with each row of a file.

    Attributes:
        judge: decides about each row.
        total: how many rows have been read. Another thread may read this.
    """

    def __init__(self, judge: Judge, parser: RowParser, options: BatchOptions) -> None:
        self.judge = judge
        self._parser = parser
        self._options = options
        self._states = bytearray()
        self._repeated: frozenset[bytes] = frozenset()
        self._seen = Occurrences(self._repeated)
        self.total = 0

    def read(self, reader: Reader, check: Callable[[], None]) -> None:
        """Read the input once and decide. Blocks, for a few seconds per million lines.

        Args:
            reader: the input.
            check: called now and then; an exception from it ends the reading.

        Raises:
            InputError: two rows have the same id, or `strict` is set and a row is invalid.
            JournalError: as `Judge.is_settled`.
        """
        rows, kinds, unnamed = bytearray(), bytearray(), DigestTable()
        known, source_digest = self.judge.recorded.sources, self._parser.source_digest
        has_known = len(known) > 0
        ids = _Ids(self.judge.recorded.ids if has_known else DigestTable())
        # On a first run nothing is recorded, so a row with an id is validated when it is sent.
        skims = self.judge.recorded.settles_nothing and not self._options.strict
        for row in self._counted(reader, check):
            data = row.data
            if has_known and isinstance(data, bytes) and (digest := source_digest(data)) in known:
                kinds += _KNOWN
                ids.table.add(digest)  # in place of its id; `_check_known` examines what this could hide
                continue
            if skims and isinstance(data, bytes) and (custom_id := self._parser.id_of(data)) is not None:
                kinds += _NEW
                ids.table.add(text_digest(custom_id))
                continue
            try:
                parsed = self._parser.parse(row, with_source=False)
            except LineError as error:
                kinds += _NEW
                self._check_strict(error, f"{reader.path}: line {row.number}")
                if error.custom_id is not None:
                    ids.add(error.custom_id)
                continue
            if parsed.custom_id is None:
                kinds += _UNNAMED
                unnamed.add(parsed.key)
                rows += parsed.key
            else:
                kinds += _NAMED
                id_digest = ids.add(parsed.custom_id)
                rows += pair_digest(id_digest, parsed.key) + id_digest
        if (twice := next(ids.table.duplicates(), None)) is not None:
            raise InputError(self._name_duplicate(reader, twice))
        self._repeated = frozenset(unnamed.duplicates())
        self._check_known(reader, kinds, ids.suspects)
        self._decide(rows, kinds, ids.table, reader)

    def _counted(self, reader: Reader, check: Callable[[], None]) -> Iterator[InputRow]:
        """Iterate over the rows, count them, and check now and then."""
        total = 0
        for row in rows_of(reader, self._options.limit):
            total += 1
            if not total % CHECKED or total == 1:
                self.total = total
                self._parser.check_columns(reader)
                check()
            yield row
        self.total = total

    def _check_strict(self, error: LineError, place: str) -> None:
        """Refuse an invalid row if `strict` is set.

        Raises:
            InputError: it is.
        """
        if self._options.strict:
            raise InputError(f"{place}: {error}") from error

    def wants(self, ordinal: int) -> bool:
        """Return whether the row at a position, counted from 0, must be examined again.

        Raises:
            InputError: there was no such row when the file was planned.
        """
        if ordinal >= len(self._states):
            raise InputError(EDITED)
        return self._states[ordinal] != SETTLED

    def request(self, parsed: ParsedRow) -> BatchRequest | None:
        """Return the request of a row that is wanted."""
        return parsed.request(self._seen.next(parsed.key) if parsed.custom_id is None else 0)

    def all_settled(self, start: int, count: int) -> bool:
        """Return whether no row from a position on must be examined again."""
        return not self._repeated and self._states.count(SETTLED, start, start + count) == count

    def occurrences(self) -> Occurrences:
        """Return a counter of rows without an id, for another pass over the input."""
        return Occurrences(self._repeated)

    def _check_known(self, reader: Reader, kinds: bytearray, suspects: set[bytes]) -> None:
        """Look at the ids of rows that were skipped unread, if any could matter, which is rare.

        Raises:
            InputError: another row has the id of one of them.
        """
        known_rows, doubtful = kinds.count(_KNOWN), self.judge.recorded.doubtful
        if not known_rows or not (suspects or doubtful):
            return
        with Reader(reader.path, reader.format) as again:
            for kind, row in zip(kinds, rows_of(again, self._options.limit), strict=False):
                if kind == _KNOWN[0]:
                    digest = text_digest(self._parser.parse(row).custom_id or "")
                    if digest in suspects:
                        raise InputError(self._name_duplicate(reader, digest))
                    if digest in doubtful:
                        self.judge.superseding.add(digest)
                    known_rows -= 1
                    if not known_rows:
                        return

    def _decide(self, rows: bytearray, kinds: bytearray, ids: DigestTable, reader: Reader) -> None:
        at, occurrences, judge = 0, self.occurrences(), self.judge
        for ordinal, kind in enumerate(kinds):
            if kind == _NAMED[0]:
                pair, id_digest = bytes(rows[at : at + SIZE]), bytes(rows[at + SIZE : at + 2 * SIZE])
                at += 2 * SIZE
            elif kind == _UNNAMED[0]:
                key = bytes(rows[at : at + SIZE])
                at += SIZE
                id_digest = text_digest(unnamed_id(key, occurrences.next(key)))
                pair = pair_digest(id_digest, key)
                if id_digest in ids:
                    raise InputError(self._name_duplicate(reader, id_digest))
            else:
                is_known = kind == _KNOWN[0]
                self._states.append(SETTLED if is_known else TODO)
                judge.settled += is_known
                continue
            try:
                self._states.append(SETTLED if judge.is_settled(pair, id_digest) else TODO)
            except ChangedError as error:
                raise self._name_changed(reader, ordinal) from error
        self._seen = self.occurrences()

    def _name_changed(self, reader: Reader, ordinal: int) -> ChangedError:
        with Reader(reader.path, reader.format) as again:
            row = next(islice(rows_of(again, None), ordinal, None))
            return ChangedError(self._parser.parse(row).custom_id or "", f"{reader.path}: line {row.number}: ")

    def skip(self, parsed_key: bytes) -> None:
        """Count a settled row without an id, so that the next one of its key gets the right occurrence."""
        self._seen.next(parsed_key)

    @property
    def has_repeated(self) -> bool:
        """Whether rows without an id repeat each other, so that settled rows must be counted, too."""
        return bool(self._repeated)

    def _name_duplicate(self, reader: Reader, digest: bytes) -> str:
        numbers: list[int] = []
        name, occurrences = "", self.occurrences()
        with Reader(reader.path, reader.format) as again:
            for row in rows_of(again, self._options.limit):
                try:
                    parsed = self._parser.parse(row)
                    custom_id: str | None = parsed.custom_id or unnamed_id(parsed.key, occurrences.next(parsed.key))
                    source = parsed.source
                except LineError as error:
                    custom_id, source = error.custom_id, b""
                if custom_id is not None and digest in {text_digest(custom_id), source}:
                    name = custom_id
                    numbers.append(row.number)
        return f"{reader.path}: lines {' and '.join(map(str, numbers[:2]))} have the same custom_id {name!r}"


class _Ids:
    """The ids of an input.

    Args:
        recorded: the ids that rows which are skipped unread may have.

    Attributes:
        table: the digests of all ids.
        suspects: those of them that are recorded.
    """

    def __init__(self, recorded: DigestTable) -> None:
        self._recorded = recorded
        self.table = DigestTable()
        self.suspects: set[bytes] = set()

    def add(self, custom_id: str) -> bytes:
        """Add an id, and return its digest."""
        digest = text_digest(custom_id)
        self.table.add(digest)
        if digest in self._recorded:
            self.suspects.add(digest)
        return digest


class StreamPlan:
    """Judges rows when they are read, if the input cannot be read twice. A repeated id is an error row."""

    has_repeated = False

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self._ids: set[bytes] = set()
        self._seen: Counter[bytes] = Counter()  # here, any key may repeat
        self.total = 0

    def wants(self, ordinal: int) -> bool:
        """Return whether a row must be examined: here, always."""
        self.total = ordinal + 1
        return True

    def request(self, parsed: ParsedRow) -> BatchRequest | None:
        """Return the request of a row, or `None` if its outcome is recorded.

        Raises:
            LineError: an earlier row has the same id.
            JournalError: as `Judge.is_settled`.
        """
        occurrence = 0
        if parsed.custom_id is None:
            occurrence = self._seen[parsed.key]
            self._seen[parsed.key] += 1
        request = parsed.request(occurrence)
        if request.id_digest in self._ids:
            raise LineError(f"custom_id {request.custom_id!r} was already used by an earlier row")
        self._ids.add(request.id_digest)
        return None if self.judge.is_settled(request.pair, request.id_digest, request.custom_id) else request

    def all_settled(self, start: int, count: int) -> bool:  # noqa: ARG002 - as `FilePlan.all_settled`
        """Return whether rows can be skipped: here, never."""
        return False

    def skip(self, parsed_key: bytes) -> None:
        """Do nothing: every row is counted in `request`."""


def rows_of(reader: Reader, limit: int | None) -> Iterator[InputRow]:
    """Iterate over the rows of a reader, up to a number of them.

    Raises:
        InputError: as `Reader.blocks`.
    """
    rows = chain.from_iterable(reader.blocks())
    return rows if limit is None else islice(rows, limit)


def invalid_key(row: InputRow) -> bytes:
    """Return the key under which a row that cannot be a request is recorded."""
    data = row.data
    if not isinstance(data, bytes):
        try:
            data = repr(data).encode() if isinstance(data, Task) else msgspec.json.encode(data, enc_hook=str)
        except (TypeError, ValueError, RecursionError):  # which may be why it is invalid
            data = f"row {row.number}".encode()
    return blake2b(data, digest_size=SIZE).digest()
