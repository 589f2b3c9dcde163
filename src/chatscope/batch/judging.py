"""Decides about one row, given the records of earlier runs: send it, skip it, or refuse an id with another request.

Also distinguishes rows without an id. Not here: the rows of a whole input (`plan`).
"""

from __future__ import annotations

from collections import Counter

from chatscope.batch.errors import JournalError
from chatscope.batch.options import BatchOptions
from chatscope.batch.scan import Recorded


class Judge:
    """Decides what to do with one row, given what is recorded.

    Args:
        recorded: the outcomes of earlier runs.
        options: how the batch is run.

    Attributes:
        recorded: the argument.
        settled: how many rows are recorded.
        changed: how many ids are recorded for another request.
        kept: how many of these keep the recorded outcome; `settled` includes them.
        failed: how many of the settled rows have failed permanently.
        superseding: the ids of the rows whose request has succeeded, and another request of the id has failed.
    """

    def __init__(self, recorded: Recorded, options: BatchOptions) -> None:
        self.recorded = recorded
        self._changed_rule = options.changed
        self.settled = 0
        self.changed = 0
        self.kept = 0
        self.failed = 0
        self.superseding: set[bytes] = set()

    def is_settled(self, pair: bytes, id_digest: bytes, custom_id: str = "") -> bool:
        """Return whether a row need not be sent.

        Raises:
            JournalError: its id is recorded for another request, and `changed` says to refuse that.
        """
        if pair in self.recorded.settled or id_digest in self.recorded.keyless:
            self.settled += 1
            if pair in self.recorded.failed:
                self.failed += 1
            elif id_digest in self.recorded.doubtful:
                self.superseding.add(id_digest)
            return True
        if id_digest not in self.recorded.ids:
            return False
        self.changed += 1
        if self._changed_rule == "refuse":
            raise ChangedError(custom_id)
        if self._changed_rule == "rerun":
            return False
        self.settled += 1
        self.kept += 1
        self.failed += id_digest in self.recorded.failed_ids
        return True


class ChangedError(JournalError):
    """A row's id is recorded for another request."""

    def __init__(self, custom_id: str, where: str = "") -> None:
        super().__init__(
            f"{where}custom_id {custom_id!r} is recorded for another request. To send the new one, say"
            " --changed=rerun; to keep what is recorded, --changed=keep"
        )


class Occurrences:
    """Counts rows that have no id, by key. Only repeated keys are stored.

    Args:
        repeated: those keys.
    """

    def __init__(self, repeated: frozenset[bytes]) -> None:
        self._repeated = repeated
        self._seen: Counter[bytes] = Counter()

    def next(self, key: bytes) -> int:
        """Return how many earlier rows had this key, and count this row."""
        if key not in self._repeated:
            return 0
        self._seen[key] += 1
        return self._seen[key] - 1
