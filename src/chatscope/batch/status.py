"""Reads an output without locking it: its counts and failures, and the failed requests as a new input.

It also reads the outputs of vLLM's `run-batch` (one file, with errors beside null bodies) and of OpenAI's Batch API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import msgspec

from chatscope.batch.errors import JournalError
from chatscope.batch.finish import standing_failures, successes
from chatscope.batch.journal import Paths
from chatscope.batch.manifest import manifest_of
from chatscope.batch.options import DEFAULT_URL
from chatscope.batch.scan import Recorded, started_without_record, whole_line


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """The content of an output in figures.

    Attributes:
        succeeded: recorded successes.
        failures: failures that are not superseded, by class.
        cost: the known cost of all recorded lines, in US dollars.
        unpriced: successes whose cost is not known.
        in_flight: requests that were started but not recorded. If the run was killed, they may have been paid for.
        input: the input's path in the manifest.
    """

    succeeded: int
    failures: dict[str, int]
    cost: float
    unpriced: int
    in_flight: int
    input: str | None

    @property
    def failed(self) -> int:
        """Failures that are not superseded."""
        return sum(self.failures.values())


def read_status(output: str | Path) -> BatchStatus:
    """Read an output. Blocks, for a few seconds per million lines.

    Raises:
        JournalError: there is no such output, or a line of it is not a record.
    """
    paths = Paths(output)
    if not paths.output.exists():
        raise JournalError(f"{paths.output}: there is no such output")
    recorded = Recorded()
    recorded.read(paths, check=lambda: None)
    in_flight = started_without_record(paths, recorded)
    failures = dict(recorded.failures.most_common())
    source = manifest_of(paths).input.get("path")
    return BatchStatus(
        recorded.succeeded,
        failures,
        recorded.cost,
        recorded.unpriced,
        in_flight,
        source if isinstance(source, str) else None,
    )


def failed_requests(output: str | Path, on_omitted: Callable[[str], object] | None = None) -> Iterator[bytes]:
    """Iterate over the requests that have failed and not succeeded since, as lines of an input.

    Failures contain their requests, so the input is no longer needed. Invalid rows, tasks, and failures that other
    tools recorded are omitted.

    Args:
        output: the output.
        on_omitted: called with the id of each failure that is omitted.

    Raises:
        JournalError: there is no such output, or a line of it is not a record.
        OSError: a file cannot be read.
    """
    paths = Paths(output)
    if not paths.output.exists():
        raise JournalError(f"{paths.output}: there is no such output")
    succeeded = successes(paths.output)
    url = manifest_of(paths).settings.get("url", DEFAULT_URL)
    offsets = standing_failures(paths, lambda _, pair: pair in succeeded).values()
    with paths.errors.open("rb") if offsets else BytesIO() as lines:
        for offset in offsets:
            lines.seek(offset)
            recorded = whole_line(lines, paths.errors)
            body = recorded.get("chatscope", {}).get("request")
            if body is not None:
                again = {"custom_id": recorded["custom_id"], "method": "POST", "url": url, "body": body}
                yield msgspec.json.encode(again) + b"\n"
            elif on_omitted is not None:
                on_omitted(recorded["custom_id"])
