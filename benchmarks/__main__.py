"""`python -m benchmarks`: run the scenarios, print the tables, save the figures."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import benchmarks
from benchmarks.contenders import CONTENDERS, LOOPS, Entry
from benchmarks.harness.baseline import source_at, with_baseline
from benchmarks.harness.cores import Cores
from benchmarks.harness.processes import ROOT
from benchmarks.harness.report import document, table, verdict
from benchmarks.harness.run import Measured, Plan, available, measure
from benchmarks.scenarios.costs import SCENARIOS

REPETITIONS = 5
QUICK_REPETITIONS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that the arguments select; return the exit status."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=benchmarks.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=_names(CONTENDERS), metavar="CONTENDERS", help="a comma-separated choice")
    parser.add_argument("--scenario", type=_names(SCENARIOS), metavar="SCENARIOS", help="a comma-separated choice")
    parser.add_argument("--loop", type=_names(LOOPS), metavar="LOOPS", help="a comma-separated choice")
    parser.add_argument(
        "--quick", action="store_true", help="a quarter of the work, twice: a first impression, not a figure to quote"
    )
    parser.add_argument("--repetitions", type=int, help=f"samples of each figure (default: {REPETITIONS})")
    parser.add_argument("--against", metavar="COMMIT", help="also measure chatscope as of this commit")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="file for the figures (default: a new one in benchmarks/results/)"
    )
    parser.add_argument("--list", action="store_true", help="list contenders and scenarios")
    options = parser.parse_args(arguments)
    if options.list:
        print(_listing())
        return 0
    entries, missing = available(options.only)
    for line in missing:
        print(f"skipped: {line}", file=sys.stderr)
    if options.against is None:
        _run(options, entries)
        return 0
    with ExitStack() as stack:
        try:
            commit, source = stack.enter_context(source_at(options.against))
        except ValueError as error:
            parser.error(f"argument --against: {error}")
        _run(options, with_baseline(entries, commit, source))
    return 0


def _run(options: argparse.Namespace, entries: Sequence[Entry]) -> None:
    chosen = [SCENARIOS[name] for name in options.scenario or SCENARIOS]
    plan = Plan(
        scenarios=[scenario.quick() for scenario in chosen] if options.quick else chosen,
        loops=[loop for loop in LOOPS if not options.loop or loop in options.loop],
        contenders=entries,
        repetitions=options.repetitions or (QUICK_REPETITIONS if options.quick else REPETITIONS),
    )
    cores, load = Cores.of_this_machine(), _load()
    print(benchmarks.__doc__)
    where = "no core" if cores.client is None else f"core {cores.client}, the server to core {cores.server}"
    print(f"Contenders are pinned to {where}; load averages: {load}.\n", flush=True)
    if cores.client is not None and cores.client == cores.server:
        print("There is only one core: client and server share it and its caches.\n")

    scenarios = {scenario.name: scenario for scenario in plan.scenarios}

    def tell(samples: Sequence[Measured]) -> None:
        if samples:
            print(table(scenarios[samples[0].scenario], samples), end="\n\n", flush=True)

    samples = measure(plan, cores, tell)
    print(verdict(samples))
    file = options.json or ROOT / "benchmarks" / "results" / time.strftime("%Y%m%d-%H%M%S.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document(plan, cores, samples, load), indent=1) + "\n", encoding="utf-8")


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
        return names

    return parse


def _load() -> list[float]:
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []


def _listing() -> str:
    lines = ["contenders"]
    for entry in CONTENDERS.values():
        without = f"; not installed: {', '.join(entry.missing)}" if entry.missing else ""
        lines.append(f"  {entry.name:17} {entry.what} ({', '.join(entry.modules)}{without})")
    lines.append("scenarios")
    lines += [f"  {scenario.name:17} {scenario.what}" for scenario in SCENARIOS.values()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
