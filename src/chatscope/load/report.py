"""The report of a run: the values of `summary.json`, and the files of a run's folder.

Here: its structure, saving and loading. Not here: computing the figures (`metrics`, `verdict`), and other tools'
formats (`vllm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from chatscope.load.calibration import ScaleSource
from chatscope.load.client_error import ClientError
from chatscope.load.distributions import distribution
from chatscope.load.metrics import FORMULAS, StageSummary
from chatscope.load.objectives import ObjectiveResult
from chatscope.load.plan import SearchKind
from chatscope.load.records import RequestRecord, read_records
from chatscope.load.verdict import Verdict, VerdictState
from chatscope.load.vllm import vllm_result

SCHEMA_VERSION: Final = 1
"""Increases when a field changes its meaning or is removed. New fields do not change it."""

_WORST: Final[tuple[VerdictState, ...]] = ("invalid", "suspect", "valid")


class StageReport(msgspec.Struct, kw_only=True):
    """The figures of one stage, whether they can be trusted, and whether they meet the objectives.

    `window_ns` is the measured window (`time.perf_counter_ns`). `goodput` is the share of all attempts that succeeded
    within every objective's limit, and `goodput_per_second` their number per second.
    """

    summary: StageSummary
    verdict: Verdict
    window_ns: tuple[int, int]
    objectives: list[ObjectiveResult] = []
    goodput: float = 0.0
    goodput_per_second: float = 0.0
    notices: list[str] = []


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The highest load that met every objective.

    `value` is `None` if no load did. `failed_at` is the lowest load above it that did not; `None` if the search ended
    before one was found. `client_in_the_way` is whether the verdict on the client was `invalid` at that load: the limit
    may then be the client's.
    """

    kind: SearchKind
    value: float | None
    failed_at: float | None
    client_in_the_way: bool = False


class LoadReport(msgspec.Struct, kw_only=True):
    """What a run measured. The attributes are the values of `summary.json`, and `records` those of `requests.jsonl`.

    `lengths_counted_by` is the origin of the length of a word: the server's tokenizer, or its usage of two requests.
    `verdict` is that of the worst stage; for a search, the worst of the two stages that decide it. `salt` reproduces
    the prompts, and `seed` (in `plan`) the schedule.
    """

    verdict: VerdictState
    stages: list[StageReport]
    plan: dict[str, Any]
    salt: str
    started_at: str
    host: dict[str, Any] = {}
    notices: list[str] = []
    tokens_per_word: float | None = None
    prompt_overhead_tokens: float | None = None
    lengths_counted_by: ScaleSource | None = None
    was_stopped: bool = False
    client_error: ClientError | None = None
    search: SearchResult | None = None
    formulas: dict[str, dict[str, Any]] = msgspec.field(
        default_factory=lambda: {
            name: {"formula": formula.text, "also_called": dict(formula.also_called), "unit": "s"}
            for name, formula in FORMULAS.items()
        }
    )
    schema_version: int = SCHEMA_VERSION
    records: list[RequestRecord] = []

    @property
    def ok(self) -> int:
        """How many of the measured requests succeeded."""
        return sum(stage.summary.ok for stage in self.stages)

    @property
    def meets_objectives(self) -> bool:
        """Whether every objective is met in every stage. For a search: whether it found a load that meets them."""
        if self.search is not None:
            return self.search.value is not None
        return all(result.is_met for stage in self.stages for result in stage.objectives)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `summary.json`."""
        built: dict[str, Any] = msgspec.to_builtins(
            {name: getattr(self, name) for name in self.__struct_fields__ if name != "records"}
        )
        return built

    def save(self, folder: str | Path, *, records: bool = True) -> None:
        """Write `summary.json`, `requests.jsonl` and `vllm.json` into a folder, which is created if needed.

        With several stages, there are several files in vLLM's format: `vllm-0.json` and so on.

        Args:
            folder: the folder.
            records: whether to write `requests.jsonl`. Not needed if the run wrote it as the requests ended.

        Raises:
            OSError: a file cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if records:
            with (folder / "requests.jsonl").open("wb") as file:
                file.writelines(record.to_json() for record in self.records)
        for index, stage in enumerate(self.stages):
            name = "vllm.json" if len(self.stages) == 1 else f"vllm-{index}.json"
            _write_json(folder / name, self._vllm_result(index, stage))
        _write_json(folder / "summary.json", self.to_dict())

    def _vllm_result(self, index: int, stage: StageReport) -> dict[str, Any]:
        records = [record for record in self.records if record.stage == index and record.window == "measured"]
        per_second = stage.goodput_per_second if stage.objectives else None
        return vllm_result(
            stage.summary, records, goodput_per_second=per_second, plan=self.plan, started_at=self.started_at
        )


def load_report(folder: str | Path) -> LoadReport:
    """Read a report that was saved, with its records.

    Raises:
        ValueError: a file was not written by `save`, or by a newer version.
        OSError: a file cannot be read.
    """
    folder = Path(folder)
    try:
        report = msgspec.json.decode((folder / "summary.json").read_bytes(), type=LoadReport)
    except msgspec.DecodeError as error:
        raise ValueError(f"{folder / 'summary.json'} is not the summary of a load test: {error}") from error
    if report.schema_version > SCHEMA_VERSION:
        raise ValueError(
            f"{folder / 'summary.json'} has version {report.schema_version} of its schema, and this chatscope reads"
            f" {SCHEMA_VERSION}: use a newer chatscope"
        )
    for stage in report.stages:  # an older chatscope may not have known a latency
        stage.summary.metrics = dict.fromkeys(FORMULAS, distribution(())) | stage.summary.metrics
    report.records = list(read_records(folder / "requests.jsonl"))
    return report


def worst_verdict(stages: Sequence[StageReport]) -> VerdictState:
    """Return the verdict of a run: that of its worst stage."""
    return min(stages, key=lambda stage: _WORST.index(stage.verdict.state)).verdict.state if stages else "valid"


def _write_json(path: Path, value: Any) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
