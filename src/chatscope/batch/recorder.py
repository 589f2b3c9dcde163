"""Writes outcomes to the journal: one line each, counted once it is written. Equal requests share one outcome.

Outcomes that arrive together are written together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

import msgspec

from chatscope import Completion, InvalidResponseError, OutputError, Platform, Result, TaskStatus
from chatscope.batch.digests import DigestTable, text_digest
from chatscope.batch.errors import InputError
from chatscope.batch.extras import optional
from chatscope.batch.journal import Journal
from chatscope.batch.options import BatchOptions
from chatscope.batch.outcomes import RequestOutcome, copied_line, invalid_line, outcome_of
from chatscope.batch.progress import Tally
from chatscope.batch.records import INVALID_LINE, RECORD
from chatscope.batch.requests import BatchRequest
from chatscope.batch.source import InvalidRow

Outcome: TypeAlias = tuple[BatchRequest, Result]
_Written: TypeAlias = tuple[BatchRequest, Result, RequestOutcome]


class DiskError(Exception):
    """The journal could not be written."""


class Recorder:
    """Writes outcomes and counts them.

    Args:
        journal: the journal.
        options: how the batch is run.
        run_id: the name of this run in each line.
        offsets: with `dedup`, the offsets of successes, by key.
        on_copy: called with an outcome that was copied from a recorded one.

    Attributes:
        tally: the counts.
        outcomes: the ids that have an outcome in this run.
    """

    def __init__(
        self,
        journal: Journal,
        options: BatchOptions,
        run_id: str,
        offsets: dict[bytes, int] | None,
        on_copy: Callable[[list[Outcome]], object] | None = None,
    ) -> None:
        self._journal = journal
        self._as_record = options.output_format == "record"
        self._run_id = run_id
        self._offsets = offsets
        self._on_copy = on_copy
        self._waiting: dict[bytes, list[BatchRequest]] = {}
        self._parse = validator(options.schema) if options.schema is not None else None
        self.tally = Tally()
        self.outcomes = DigestTable()

    def begin(self, request: BatchRequest) -> bool:
        """Return whether a request must be sent. If not, it gets the outcome of an equal one.

        Raises:
            DiskError: the journal could not be written.
        """
        if self._offsets is not None:
            if (waiting := self._waiting.get(request.key)) is not None:
                waiting.append(msgspec.structs.replace(request, body=waiting[0].body))  # an equal one, kept once
                return False
            if (offset := self._offsets.get(request.key)) is not None:
                line = self._copied(offset, request)
                self._append(line, success=True)
                self.tally.succeeded += 1
                self.tally.copied += 1
                self.outcomes.add(request.id_digest)
                if self._on_copy is not None:
                    self._on_copy([(request, copied_result(line, request))])
                return False
            self._waiting[request.key] = [request]
        return True

    def _copied(self, offset: int, request: BatchRequest) -> bytes:
        """Return the line at an offset for an equal request.

        Raises:
            DiskError: there is no such line any more: somebody else has moved or changed the output.
        """
        try:
            return copied_line(self._journal.read_at(offset), request)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError) as error:
            raise DiskError(f"{self._journal.paths.output}: a recorded line cannot be read again: {error}") from error

    def start(self, request: BatchRequest) -> None:
        """Record that a request is about to be sent.

        Raises:
            DiskError: the journal could not be written.
        """
        try:
            self._journal.start(request)
        except OSError as error:
            raise DiskError(str(error)) from error

    def record(self, ended: Iterable[Outcome], recorded: list[Outcome]) -> None:
        """Record outcomes. A success that does not match the schema becomes a failure.

        Args:
            ended: the requests that have ended, with their results.
            recorded: receives the outcomes once they have been written and counted, and with them those of the equal
                requests that waited for one of these.

        Raises:
            DiskError: the journal could not be written. What was written before is counted.
        """
        successes: list[_Written] = []
        failures: list[_Written] = []
        for request, given in ended:
            result, parsed = self._judged(given)
            try:
                outcome = outcome_of(request, result, self._run_id, as_record=self._as_record, parsed=parsed)
            except RecursionError:
                result, outcome = self._without_depth(request, result)
            (successes if result.success else failures).append((request, result, outcome))
        if successes:
            self._write(successes, recorded, success=True)
        if failures:
            self._write(failures, recorded, success=False)

    def _without_depth(self, request: BatchRequest, result: Result) -> tuple[Result, RequestOutcome]:
        """Return an outcome that JSON cannot hold as a failure with its text: it must not end the run."""
        message = f"nested too deeply to be recorded: {result.error or 'the response'}"
        result = failed_result(result, InvalidResponseError(message))
        try:
            return result, outcome_of(request, result, self._run_id, as_record=self._as_record)
        except RecursionError:  # it is the request that is nested so deeply
            request = msgspec.structs.replace(request, body=None, record={})
            return result, outcome_of(request, result, self._run_id, as_record=self._as_record)

    def _judged(self, result: Result) -> tuple[Result, object]:
        """Return a result and its value, if there is a schema."""
        if self._parse is None or not result.success:
            return result, None
        try:
            return result, self._parse(result.output)
        except ValueError as error:
            return failed_result(result, OutputError(f"the response does not fit the schema: {error}")), None

    def _write(self, group: Sequence[_Written], recorded: list[Outcome], *, success: bool) -> None:
        """Write outcomes at once, then count them."""
        try:
            at = self._journal.append(*[outcome.line for _, _, outcome in group], success=success)
        except OSError as error:
            if len(group) == 1:
                raise DiskError(str(error)) from error
            for one in group:  # until one does not fit any more
                self._write([one], recorded, success=success)
            return
        for request, result, outcome in group:
            self.tally.add(result, outcome.first_token_seconds)
            self._count(request.id_digest, request.custom_id, outcome)
            recorded.append((request, result))
            if self._offsets is not None and success:
                self._offsets[request.key] = at
                at += len(outcome.line)
        if self._waiting:
            for request, result, outcome in group:
                self._copy(request, result, outcome, recorded)

    def _copy(self, request: BatchRequest, result: Result, outcome: RequestOutcome, recorded: list[Outcome]) -> None:
        """Record an outcome for the equal requests that waited for it."""
        for other in self._waiting.pop(request.key, ())[1:]:
            self._append(copied_line(outcome.line, other), success=result.success)
            self.tally.copied += 1
            self._count(other.id_digest, other.custom_id, outcome)
            recorded.append((other, _changed(result, task=other.task(), **_NOTHING_SENT)))

    def abandon(self, request: BatchRequest) -> None:
        """Forget a request that was cancelled and so has no outcome. The next run will send it."""
        self._waiting.pop(request.key, None)

    def record_invalid(self, row: InvalidRow) -> None:
        """Record a row that cannot become a request.

        Raises:
            DiskError: the journal could not be written.
        """
        line = invalid_line(row.custom_id, row.key, row.number, row.message, self._run_id)
        self._append(line, success=False)
        self.tally.invalid += 1
        outcome = RequestOutcome(line, INVALID_LINE, f"line {row.number}: {row.message}")
        self._count(text_digest(row.custom_id), row.custom_id, outcome)

    def _append(self, line: bytes, *, success: bool) -> None:
        try:
            self._journal.append(line, success=success)
        except OSError as error:
            raise DiskError(str(error)) from error

    def _count(self, id_digest: bytes, custom_id: str, outcome: RequestOutcome) -> None:
        self.outcomes.add(id_digest)
        if outcome.error_class is None:
            self.tally.succeeded += 1
        else:
            self.tally.fail(outcome.error_class, f"{custom_id}: {outcome.message}")


def copied_result(line: bytes, request: BatchRequest) -> Result:
    """Return the result that a copied line records. It cost nothing, and nothing was sent."""
    recorded = msgspec.json.decode(line)
    completion = None
    if recorded["chatscope"].get("format") != RECORD:
        with suppress(msgspec.ValidationError):  # a body that another tool wrote
            completion = msgspec.convert(recorded["response"]["body"], Completion)
    return Result(
        task=request.task(),
        platform=Platform.CHATGPT,
        output=completion.text if completion is not None else recorded.get("output") or "",
        success=True,
        status=TaskStatus.COMPLETED,
        cost=0.0,
        finish_reason=completion.finish_reason if completion is not None else None,
        message=completion.message if completion is not None else None,
        completion=completion,
    )


def failed_result(result: Result, error: Exception) -> Result:
    """Turn a successful result into one that failed with an error. Its usage and cost remain."""
    return _changed(result, success=False, status=TaskStatus.FAILED, error=str(error), exception=error)


def _changed(result: Result, **values: Any) -> Result:
    return Result(**{name: getattr(result, name) for name in result.__dataclass_fields__} | values)


_NOTHING_SENT: Final[dict[str, Any]] = {
    "attempts": 0,
    "attempts_log": (),
    "cost": 0.0,
    "duration_seconds": 0.0,
    "timings": None,
    "tokens_used": None,
    "usage": None,
}
"""What a copied result has in place of the original's values, which count once."""


def validator(schema: Mapping[str, Any]) -> Callable[[str], object]:
    """Return a function that parses a text and validates it against a JSON schema. It raises `ValueError` if it fails.

    Raises:
        InputError: jsonschema is not installed, or the schema is invalid.
    """
    jsonschema = optional("jsonschema", "batch")
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.exceptions.SchemaError as error:
        raise InputError(f"schema: not a valid JSON schema: {error.json_path}: {error.message}") from error
    checker = kind(schema)

    def parse(text: str) -> object:
        try:
            value = msgspec.json.decode(text)
            worst = jsonschema.exceptions.best_match(checker.iter_errors(value))
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from error
        except Exception as error:  # such as a reference that leads nowhere; the outcome is recorded
            raise ValueError(f"the schema cannot be applied: {error}") from error
        if worst is not None:
            raise ValueError(f"{worst.json_path}: {worst.message}")
        return value

    return parse
