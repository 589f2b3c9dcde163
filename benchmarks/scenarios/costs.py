"""The scenarios of `python -m benchmarks`, full and quick, as plain values. Not here: measuring them (`measure`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from benchmarks.harness.server import Pace

Kind = Literal["stream", "plain", "memory", "cancel", "import"]

UNITS: Final[dict[Kind, str]] = {
    "stream": "us of client CPU per streamed token",
    "plain": "us of client CPU per request",
    "memory": "KiB of resident size per open stream",
    "cancel": "us from the cancellation to the closed connection",
    "import": "ms of CPU of an import, the bare interpreter's subtracted",
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing to measure.

    Args:
        name: its name on the command line.
        kind: how it is measured.
        what: a description.
        at_once: the number of streams or requests at a time.
        total: the number of streams or requests in all.
        tokens: the number of tokens of each response.
        pace: the pace of the tokens.
        tls: whether connections use TLS.
    """

    name: str
    kind: Kind
    what: str
    at_once: int = 1
    total: int = 1
    tokens: int = 1
    pace: Pace = Pace.STEADY
    tls: bool = False

    @property
    def unit(self) -> str:
        """The unit of its values."""
        return UNITS[self.kind]

    def quick(self) -> Scenario:
        """Return it with a fraction of the work, at the same concurrency, for a first impression."""
        if self.kind == "stream" and self.pace is Pace.STEADY:
            less = replace(self, tokens=self.tokens // 4)
        else:
            less = replace(self, total=max(self.total // 4, self.at_once))
        return less if less == self else replace(less, what=f"{self.what}; quick: a quarter of it")


def _stream(at_once: int, *, tls: bool = False) -> Scenario:
    # A usual length. At 100 tokens/s a stream lasts 3 s, so its start and end hardly matter.
    what = f"{at_once} streams of 300 tokens, 100 tokens/s each{', over TLS' if tls else ''}"
    name = f"stream{'' if at_once == 128 else f'-{at_once}'}{'-tls' if tls else ''}"
    return Scenario(name, "stream", what, at_once=at_once, total=at_once, tokens=300, tls=tls)


def _plain(at_once: int, *, tls: bool = False) -> Scenario:
    # Half a page of text. There are so many requests that one pause of the garbage collector does not dominate.
    name, over = ("-tls", " over TLS") if tls else ("", "")
    total = max(2048, 3 * at_once)
    what = f"plain requests, {at_once} at once{over}"
    return Scenario(f"plain-{at_once}{name}", "plain", what, at_once=at_once, total=total, tokens=100, tls=tls)


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        _stream(128),
        _stream(32),  # the slowest client can keep up with this; a saturated one would read several tokens at a time
        Scenario(
            "burst",
            "stream",
            "streams of 1,000 tokens, each in one write, 4 at once",
            at_once=4,
            total=32,
            tokens=1000,
            pace=Pace.BURST,
        ),
        _plain(16),
        _plain(64),
        _plain(1024),
        _stream(128, tls=True),
        _plain(16, tls=True),
        _plain(64, tls=True),
        _plain(1024, tls=True),
        Scenario(
            "memory",
            "memory",
            "1,000 open streams that have delivered 20 tokens",
            at_once=1000,
            total=1000,
            tokens=20,
            pace=Pace.HOLD,
        ),
        Scenario("cancel", "cancel", "one stream at a time, cancelled in its middle", total=40, tokens=100_000),
        Scenario("import", "import", "a fresh interpreter with a warm disk cache"),
    )
}
"""Every scenario by its name, in the order in which they run."""
