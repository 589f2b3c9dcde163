"""Runs the scenarios: contenders alternate, samples are collected. Not here: what the samples mean (`report`)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from benchmarks.contenders import CONTENDERS, Entry
from benchmarks.harness.baseline import SEPARATOR
from benchmarks.harness.cores import Cores
from benchmarks.harness.processes import LocalServer, Process, environment
from benchmarks.scenarios.costs import Scenario

SATURATED = 0.95
"""The share of a core above which a process counts as saturated. The rest is the kernel's and the clock's."""

DISTURBED = 0.05
"""The share of late tokens above which a sample counts as disturbed. On a quiet machine it is below 0.01."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One sample, with its scenario, loop and contender."""

    scenario: str
    loop: str
    contender: str
    repetition: int
    unit: str
    value: float
    client_load: float = 0.0
    """The client's CPU time over the time that passed."""
    server_load: float = 0.0
    late_share: float = 0.0
    """The share of a paced stream's tokens that the server sent late."""

    @property
    def disturbed(self) -> bool:
        """Whether the server could not keep up."""
        return self.late_share > DISTURBED

    @property
    def client_saturated(self) -> bool:
        """Whether the client had no time left."""
        return self.client_load >= SATURATED

    @property
    def server_saturated(self) -> bool:
        """Whether the server had no time left, so that it limited the rate."""
        return self.server_load >= SATURATED


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, and in which order.

    Args:
        scenarios: in their order.
        loops: in their order within a scenario.
        contenders: in the order in which they alternate.
        repetitions: how many samples to take of each.
    """

    scenarios: Sequence[Scenario]
    loops: Sequence[str]
    contenders: Sequence[Entry]
    repetitions: int


def measure(plan: Plan, cores: Cores, tell: Callable[[Sequence[Measured]], object]) -> list[Measured]:
    """Run a plan and return every sample. `tell` is called with each scenario's samples when they are complete."""
    taken: list[Measured] = []
    with LocalServer(cores.server) as server:
        for scenario in plan.scenarios:
            before = len(taken)
            if scenario.kind == "import":
                taken += _imports(scenario, plan, cores)
            else:
                for loop in plan.loops:
                    taken += _turns(scenario, loop, plan, server, cores)
            tell(taken[before:])
    return taken


def _turns(scenario: Scenario, loop: str, plan: Plan, server: LocalServer, cores: Cores) -> list[Measured]:
    """Start the contenders, take samples of them alternately, stop them."""
    order = {
        "scenario": asdict(scenario),
        "port": server.port,
        "tls_port": server.tls_port,
        "authority": server.authority,
    }
    entries = [entry for entry in plan.contenders if loop in entry.modules]
    taken = []
    # The resident size is only comparable in a process that has not done anything else.
    rounds = plan.repetitions if scenario.kind == "memory" else 1
    for outer in range(rounds):
        with ExitStack() as stack:
            workers = [_worker(entry, loop, cores) for entry in entries]
            for worker in workers:
                worker.start()
            for worker in workers:
                stack.enter_context(worker)
            for inner in range(plan.repetitions // rounds):
                for entry, worker in zip(entries, workers, strict=True):
                    _progress(scenario.name, loop, entry.name, outer + inner + 1)
                    sample = worker.ask(order)
                    taken.append(
                        Measured(
                            scenario.name,
                            loop,
                            entry.name,
                            outer + inner,
                            scenario.unit,
                            sample["value"],
                            sample["cpu_seconds"] / sample["wall_seconds"],
                            sample["server_cpu_seconds"] / sample["wall_seconds"],
                            sample["late_share"],
                        )
                    )
    return taken


def _worker(entry: Entry, loop: str, cores: Cores) -> Process:
    name = entry.name.partition(SEPARATOR)[0]
    source = () if entry.source is None else ("--source", entry.source)
    return Process("harness.worker", name, loop, *source, core=cores.client, source=entry.source)


def _imports(scenario: Scenario, plan: Plan, cores: Cores) -> list[Measured]:
    """Time imports in fresh interpreters, alternating with a bare interpreter."""
    entries = [entry for entry in plan.contenders if entry.imported]
    taken = []
    for repetition in range(-1, plan.repetitions):
        _progress(scenario.name, "-", "all", repetition + 1)
        bare = _interpreter_seconds("sys", cores, None)
        for entry in entries:
            spent = _interpreter_seconds(entry.imported or "", cores, entry.source) - bare
            if repetition >= 0:  # the first round fills the disk cache and compiles
                taken.append(Measured(scenario.name, "-", entry.name, repetition, scenario.unit, spent * 1e3))
    return taken


def _interpreter_seconds(module: str, cores: Cores, source: str | None) -> float:
    """Return the CPU time of an interpreter that has imported a module and nothing else."""
    pin = "" if cores.client is None else f"import os; os.sched_setaffinity(0, {{{cores.client}}}); "
    code = f"{pin}import {module}, time; print(time.process_time())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(source), stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def _progress(*words: object) -> None:
    if sys.stderr.isatty() or os.environ.get("BENCHMARKS_PROGRESS"):
        print(*words, file=sys.stderr, flush=True)


def available(names: Sequence[str] | None) -> tuple[list[Entry], list[str]]:
    """Return the contenders with these names (all, if none) that can run, and a message for each that cannot."""
    chosen = [entry for entry in CONTENDERS.values() if not names or entry.name in names]
    missing = [f"{entry.name}: not installed: {', '.join(entry.missing)}" for entry in chosen if entry.missing]
    return [entry for entry in chosen if not entry.missing], missing
