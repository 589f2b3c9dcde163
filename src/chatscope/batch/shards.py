"""Shards: a batch in parts, each with its own journal, so that several processes can run it.

The folder `shards` beside an output holds them: requests in `NUMBER.requests.jsonl`, and their outcomes in the journal
`NUMBER.jsonl`. Every run first merges what it finds there into the output, so nothing is sent twice.

Here: the files, and how they become one output again. Not here: who runs them (`chatscope.ray`).
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from chatscope.batch.digests import DigestTable
from chatscope.batch.errors import JournalError
from chatscope.batch.finish import pair_of, successes
from chatscope.batch.journal import Journal, Paths
from chatscope.batch.progress import Tally
from chatscope.batch.records import RecordedLine, decode_line
from chatscope.batch.replacing import write_durably
from chatscope.batch.requests import BatchRequest, ParsedRow
from chatscope.batch.scan import (
    CHUNK,
    Recorded,
    outcome_digest,
    read_superseded,
    recorded_lines,
    started_without_record,
)

_REQUESTS: Final = ".requests.jsonl"


class ShardedRequest(msgspec.Struct, kw_only=True):
    """One line of a shard: a planned request, complete, so that no process needs the lines of other shards."""

    custom_id: str
    key: str
    number: int
    body: dict[str, Any]
    record: dict[str, Any] | None = None
    source: str = ""


class RecordedTokens(msgspec.Struct, kw_only=True):
    """The usage of a line."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    prompt_tokens_details: dict[str, Any] | None = None
    completion_tokens_details: dict[str, Any] | None = None


class RecordedBody(msgspec.Struct, kw_only=True):
    """The parts of a response's body that are counted."""

    usage: RecordedTokens | None = None
    error: dict[str, Any] | None = None


class CountedResponse(msgspec.Struct, kw_only=True):
    """The parts of a line's response that are counted."""

    body: RecordedBody | None = None


class CountedFacts(msgspec.Struct, kw_only=True):
    """The values that chatscope added to a line and that are counted."""

    attempts: int = 0
    duration_seconds: float = 0.0
    first_token_seconds: float | None = None


class CountedLine(msgspec.Struct, kw_only=True):
    """The values that a summary counts in a line, in addition to `RecordedLine`."""

    chatscope: CountedFacts
    response: CountedResponse | None = None
    error: dict[str, Any] | None = None
    usage: RecordedTokens | None = None


_decode_request: Final = msgspec.json.Decoder(ShardedRequest).decode
_decode_counted: Final = msgspec.json.Decoder(CountedLine).decode
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


class Shards:
    """The shards of one output.

    Args:
        paths: the output's.
    """

    def __init__(self, paths: Paths) -> None:
        self._folder = paths.meta / "shards"
        self._count = 0

    def exist(self) -> bool:
        """Return whether a run left shards behind. Blocks."""
        return self._folder.is_dir()

    def write(self, requests: Iterable[BatchRequest]) -> Path:
        """Write a shard, and return its path. Blocks.

        Raises:
            OSError: the disk is full, or failed.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._count:06}{_REQUESTS}"
        self._count += 1
        write_durably(path, b"".join(_shard_line(request) for request in requests))
        return path


def part_of(shard: Path) -> Path:
    """Return the path of a shard's journal."""
    return shard.with_name(shard.name.removesuffix(_REQUESTS) + ".jsonl")


def read_shard(shard: Path) -> Iterator[ParsedRow]:
    """Iterate over the requests of a shard.

    Raises:
        OSError: the file cannot be read.
    """
    with shard.open("rb") as file:
        for line in file:
            one = _decode_request(line)
            key, source = bytes.fromhex(one.key), bytes.fromhex(one.source)
            yield ParsedRow(one.custom_id, key, one.number, one.body, one.record, source=source)


def merge_parts(journal: Journal, on_line: Callable[[bytes, RecordedLine], object] | None = None) -> int:
    """Append what the parts recorded to the output, and remove the shards. Blocks.

    A merge that was killed is repeated: lines that are already in the output are skipped.

    Args:
        journal: the output's, locked.
        on_line: called with each line of the parts.

    Returns:
        How many requests the parts had started but not recorded.

    Raises:
        LockedError: another process is still writing a part.
        JournalError: a line of a part is not a record.
        OSError: the disk is full, or failed.
    """
    paths = journal.paths
    folder = paths.meta / "shards"
    if not folder.is_dir():
        return 0
    parts: list[Journal] = []
    try:
        for shard in sorted(folder.glob(f"*{_REQUESTS}")):
            parts.append(Journal(Paths(part_of(shard))))  # noqa: PERF401 - if one is locked, the others must be closed
        _keep_torn(parts, journal)
        known = successes(paths.output)
        known_failures = DigestTable()
        for _, _, line in recorded_lines(paths.errors):
            known_failures.add(outcome_digest(pair_of(line), line.chatscope.run))
        in_flight = 0
        superseded: dict[str, float] = {}
        for part in parts:
            in_flight += _in_flight(part.paths)
            superseded |= read_superseded(part.paths)
            for data, line in _lines(part.paths):
                pair = pair_of(line)
                if on_line is not None:
                    on_line(data, line)
                if line.failed and outcome_digest(pair, line.chatscope.run) not in known_failures:
                    journal.append(data, success=False)
                elif not line.failed and pair not in known:
                    journal.append(data, success=True)
        if superseded:
            write_durably(paths.superseded, _encode(read_superseded(paths) | superseded))
        journal.sync()
    finally:
        for part in parts:
            part.close()
    shutil.rmtree(folder)
    return in_flight


class LineTally:
    """Counts recorded lines as a run counts its results. Each request counts once, by its latest line.

    Attributes:
        runs: the runs that the lines came from.
    """

    def __init__(self) -> None:
        self.runs: set[str] = set()
        self._tally = Tally()
        self._failed: dict[bytes, tuple[str, str]] = {}

    def add(self, data: bytes, line: RecordedLine) -> None:
        """Count a line. Its usage counts in any case; a success replaces an earlier failure."""
        counted, tally = _decode_counted(data), self._tally
        self.runs.add(line.chatscope.run)
        facts, body = counted.chatscope, None if counted.response is None else counted.response.body
        tally.retries += max(0, facts.attempts - 1)
        usage = counted.usage or (None if body is None else body.usage)
        if line.chatscope.cost_usd is not None:
            tally.cost += line.chatscope.cost_usd
        elif line.is_unpriced:
            tally.unpriced += 1
        if usage is not None:
            prompt, completion = usage.prompt_tokens_details or {}, usage.completion_tokens_details or {}
            tally.prompt_tokens += usage.prompt_tokens
            tally.completion_tokens += usage.completion_tokens
            tally.cached_tokens += usage.cached_tokens or prompt.get("cached_tokens") or 0
            tally.reasoning_tokens += usage.reasoning_tokens or completion.get("reasoning_tokens") or 0
        pair = pair_of(line)
        if line.failed:
            error = counted.error or (None if body is None else body.error) or {}
            self._failed[pair] = (line.error_class, f"{line.custom_id}: {error.get('message', '')}")
            return
        tally.succeeded += 1
        tally.durations.append(facts.duration_seconds)
        if facts.first_token_seconds is not None:
            tally.first_tokens.append(facts.first_token_seconds)

    def total(self, succeeded: DigestTable) -> Tally:
        """Return the counts.

        Args:
            succeeded: the pairs that have succeeded by now; their failures are superseded.
        """
        self._tally.failed, self._tally.failures, self._tally.examples = 0, Counter(), {}
        for pair, (error_class, message) in self._failed.items():
            if pair not in succeeded:
                self._tally.fail(error_class, message)
        return self._tally


def _shard_line(request: BatchRequest) -> bytes:
    line = ShardedRequest(
        custom_id=request.custom_id,
        key=request.key.hex(),
        number=request.number,
        body=dict(request.body),
        record=None if request.record is None else dict(request.record),
        source=request.source.hex(),
    )
    return _encode(line) + b"\n"


def _keep_torn(parts: Iterable[Journal], journal: Journal) -> None:
    """Keep the lines that were cut when the parts were opened, because the parts' own folders are removed."""
    torn = b"".join(part.paths.torn.read_bytes() for part in parts if part.paths.torn.exists())
    if torn:
        journal.set_aside(torn)
        lines = len(torn.splitlines())
        journal.notices.append(f"{lines} lines of parts were cut; they are kept in {journal.paths.torn}")


def _in_flight(part: Paths) -> int:
    recorded = Recorded()
    recorded.read(part, check=lambda: None)
    return started_without_record(part, recorded)


def _lines(part: Paths) -> Iterator[tuple[bytes, RecordedLine]]:
    """Iterate over the lines of a part, successes first. A torn last line was repaired when the part was opened."""
    for path in (part.output, part.errors):
        with path.open("rb", CHUNK) as file:
            for number, data in enumerate(file, 1):
                try:
                    yield data, decode_line(data)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    raise JournalError(f"{path}: line {number} is not a record: {error}") from error
