"""The results of a run, as tables to read and as JSON to save."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import benchmarks
from benchmarks.contenders import CONTENDERS
from benchmarks.harness.baseline import SEPARATOR
from benchmarks.harness.cores import Cores
from benchmarks.harness.run import Measured, Plan
from benchmarks.harness.targets import judge
from benchmarks.scenarios.costs import Scenario

NOTES = {
    "*": "the client's core was saturated: it could not keep up, and read several tokens at a time",
    "!": "the server's core was saturated: the server, not the client, limited the rate",
    "~": "other processes used the server's core: tokens were late and in bunches, which flatters every client",
}


def table(scenario: Scenario, samples: Sequence[Measured]) -> str:
    """Return one scenario's table, with a row per contender and a column per loop: medians, and all samples' range."""
    loops = list(dict.fromkeys(sample.loop for sample in samples))
    names = list(dict.fromkeys(sample.contender for sample in samples))
    rows = [["", *loops]]
    marks: set[str] = set()
    for name in names:
        row = [_label(scenario, name)]
        for loop in loops:
            cell = [sample for sample in samples if (sample.contender, sample.loop) == (name, loop)]
            mark = _mark(scenario, cell)
            marks.update(mark)
            row.append(_cell(cell) + mark)
        rows.append(row)
    lines = [f"{scenario.name}: {scenario.what}", f"  {scenario.unit}, median (lowest .. highest)"]
    lines += _aligned(rows)
    lines += [f"  {mark} {note}" for mark, note in NOTES.items() if mark in marks]
    return "\n".join(lines)


def verdict(samples: Sequence[Measured]) -> str:
    """Return the table of targets: the bound, the measured value, and whether the target is met."""
    rows = [["target (ratio of medians)", "wanted", "measured", ""]]
    for outcome in judge(samples):
        measured = "-" if outcome.ratio is None else f"{outcome.ratio:.2f}"
        says = {True: "reached", False: "MISSED", None: "not measured"}[outcome.reached]
        rows.append([outcome.target.what, outcome.target.wanted, measured, says])
    return "\n".join(_aligned(rows))


def document(plan: Plan, cores: Cores, samples: Sequence[Measured], load: Sequence[float]) -> dict[str, Any]:
    """Return everything about a run as values for JSON.

    Args:
        plan: the plan of the run.
        cores: the cores that were used.
        samples: the measurements.
        load: the system's load averages at the start.
    """
    return {
        "about": benchmarks.__doc__,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": {"available": os.cpu_count(), **asdict(cores)},
        "load_average": load,
        "packages": dict(sorted(_packages())),
        "scenarios": [{**asdict(scenario), "unit": scenario.unit} for scenario in plan.scenarios],
        "contenders": {entry.name: entry.what for entry in plan.contenders},
        "repetitions": plan.repetitions,
        "samples": [asdict(sample) for sample in samples],
        "targets": [
            {
                "what": outcome.target.what,
                "wanted": outcome.target.wanted,
                "ratio": outcome.ratio,
                "reached": outcome.reached,
            }
            for outcome in judge(samples)
        ],
    }


def _label(scenario: Scenario, name: str) -> str:
    plain, at, commit = name.partition(SEPARATOR)
    imported = CONTENDERS[plain].imported if scenario.kind == "import" else None
    return f"import {imported}{at}{commit}" if imported else name


def _cell(samples: Sequence[Measured]) -> str:
    if not samples:
        return "-"
    values = [sample.value for sample in samples]
    return f"{_figure(statistics.median(values))} ({_figure(min(values))} .. {_figure(max(values))})"


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def _mark(scenario: Scenario, samples: Sequence[Measured]) -> str:
    # In the other scenarios the client is busy by design.
    paced = scenario.kind == "stream" and scenario.pace == "steady"
    client = paced and any(sample.client_saturated for sample in samples)
    server = any(sample.server_saturated for sample in samples)
    disturbed = any(sample.disturbed for sample in samples)
    return ("*" if client else "") + ("!" if server else "") + ("~" if disturbed else "")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _packages() -> Iterator[tuple[str, str]]:
    for distribution in importlib.metadata.distributions():
        yield distribution.metadata["Name"], distribution.version


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
