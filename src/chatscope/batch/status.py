"""What an output holds, read without locking it: counts and failures, and the failed requests as an input again.

Outputs of vLLM's `run-batch` (one file, errors beside null bodies) and of OpenAI's Batch API are read as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from chatscope.batch.digests import DigestTable, pair_digest
from chatscope.batch.errors import InputError, JournalError, LineError
from chatscope.batch.journal import Paths
from chatscope.batch.options import BatchOptions
from chatscope.batch.plan import RowIterator
from chatscope.batch.readers import Reader
from chatscope.batch.requests import BatchRequest, RowParser
from chatscope.batch.scan import Recorded, key_of, recorded_lines, started_without_record


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """What an output holds.

    Attributes:
        succeeded: recorded successes.
        failures: failures that still stand, by class.
        cost: US dollars of all recorded lines, where known.
        unpriced: successes whose cost is not known.
        in_flight: requests that were started and not recorded: if the run was killed, they may have been paid for.
        input: the input's path, as the manifest has it.
    """

    succeeded: int
    failures: dict[str, int]
    cost: float
    unpriced: int
    in_flight: int
    input: str | None

    @property
    def failed(self) -> int:
        """Failures that still stand."""
        return sum(self.failures.values())


def read_status(output: str | Path) -> BatchStatus:
    """Read what an output holds. Blocks; a million lines take some seconds.

    Raises:
        JournalError: there is no such output, or a line of it is not a record.
    """
    paths = Paths(output)
    if not paths.output.exists():
        raise JournalError(f"{paths.output}: there is no such output")
    recorded = Recorded()
    recorded.read(paths, check=lambda: None)
    in_flight = started_without_record(paths, recorded)
    failures = Counter(recorded.failures)
    return BatchStatus(
        recorded.succeeded, dict(failures), recorded.cost, recorded.unpriced, in_flight, _input(_manifest(paths))
    )


def failed_requests(output: str | Path) -> Iterator[bytes]:
    """Iterate over the requests that have failed and not succeeded since, as lines of an input.

    They are taken from the input that the manifest names, so that nothing has to be stored twice.

    Raises:
        JournalError: the output has no manifest, or a line of it is not a record.
        InputError: the input cannot be read.
    """
    paths = Paths(output)
    manifest = _manifest(paths)
    source = _input(manifest)
    if manifest is None or source is None:
        raise JournalError(f"{paths.manifest}: there is no manifest that names the input")
    if not Path(source).is_file():
        raise InputError(f"{source}: the input is no file that can be read again")
    wanted = DigestTable()
    for _, _, line in recorded_lines(paths.errors):
        wanted.add(pair_digest(line.custom_id, key_of(line)))
    for _, _, line in recorded_lines(paths.output):
        if line.failed:
            wanted.add(pair_digest(line.custom_id, key_of(line)))
    settings: dict[str, Any] = manifest["settings"]
    names = ("model", "system", "parameters", "prompt", "schema", "url", "id_column")
    options = BatchOptions(**{name: settings[name] for name in names if name in settings})
    for request in _requests(source, options):
        if request.pair in wanted:
            again = {"custom_id": request.custom_id, "method": "POST", "url": options.url, "body": request.body}
            yield msgspec.json.encode(again) + b"\n"


def _requests(source: str, options: BatchOptions) -> Iterator[BatchRequest]:
    parser = RowParser(options)
    seen: Counter[bytes] = Counter()
    with Reader(source) as reader:
        for row in RowIterator(reader, None):
            try:
                parsed = parser.parse(row)
            except LineError:
                continue
            occurrence = 0
            if parsed.custom_id is None:
                occurrence = seen[parsed.key]
                seen[parsed.key] += 1
            yield parsed.request(occurrence)


def _manifest(paths: Paths) -> dict[str, Any] | None:
    try:
        manifest = msgspec.json.decode(paths.manifest.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _input(manifest: dict[str, Any] | None) -> str | None:
    return manifest["input"].get("path") if manifest is not None and isinstance(manifest.get("input"), dict) else None
