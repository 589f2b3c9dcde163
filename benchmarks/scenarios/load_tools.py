"""Compares load generators: the true figures, each tool's figures, and each client's CPU seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.contenders.load_tools import TOOLS, Figures, LoadTool, Shape
from benchmarks.harness.cores import Cores
from benchmarks.harness.paced import paced_server
from chatscope.load.distributions import linear_percentile
from chatscope.simulator.written import WrittenResponses

STREAMS: Final = 50
SECONDS: Final = 10
TOKENS: Final = 100


class Compared(NamedTuple):
    """One tool's run."""

    tool: LoadTool
    truth: Figures
    figures: Figures

    @property
    def error(self) -> float:
        """The error of its worst figure, in seconds."""
        ours, true = self.figures, self.truth
        return max(
            abs(ours.ttft_p50 - true.ttft_p50),
            abs(ours.ttft_p99 - true.ttft_p99),
            abs(ours.gap_p50 - true.gap_p50),
            abs(ours.gap_p99 - true.gap_p99),
        )

    @property
    def shown(self) -> str:
        """Its figures beside the true ones."""
        pairs = (
            f"{name} {getattr(self.figures, key) * 1e3:.2f} (truth {getattr(self.truth, key) * 1e3:.2f})"
            for name, key in (
                ("ttft p50", "ttft_p50"),
                ("p99", "ttft_p99"),
                ("gap p50", "gap_p50"),
                ("p99", "gap_p99"),
            )
        )
        return f"{', '.join(pairs)} ms; {self.figures.cpu_seconds:.1f} s of CPU"


def compare_tools() -> Iterator[Compared | tuple[str, str]]:
    """Yield each tool's run. For a tool that was not run, yield its name and the reason."""
    cores = Cores.of_this_machine()
    for tool in TOOLS:
        if tool.path is None:
            yield tool.name, f"skipped: set {tool.variable} to the path of its command"
            continue
        with tempfile.TemporaryDirectory() as folder, paced_server(cores.server, tokens=TOKENS) as server:
            shape = Shape(server.base_url, STREAMS, SECONDS, TOKENS, Path(folder))
            shape.write_inputs()
            try:
                figures: Figures | str = tool.run(shape, cores.client)
            except ChildProcessError as error:
                figures = f"did not run: {error}"
        if isinstance(figures, str):
            yield tool.name, figures
        else:
            yield Compared(tool, _truth(server.written), figures)


def _truth(written: WrittenResponses) -> Figures:
    whole = [each for each in written.responses.values() if len(each.token_ns) == TOKENS]
    ttft = sorted((each.token_ns[0] - each.arrived_ns) / 1e9 for each in whole)
    gaps = sorted((after - before) / 1e9 for each in whole for before, after in pairwise(each.token_ns))
    return Figures(*[linear_percentile(values, percent) for values in (ttft, gaps) for percent in (50, 99)])
