"""The client's own error: the difference between its stamps and those of the server that wrote. Pure functions.

Here: the comparison. Not here: the run that is compared (`self_test`), and the verdict, which does not need it
(`verdict`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import msgspec

from chatscope.load.distributions import Distribution, distribution
from chatscope.load.records import RequestRecord
from chatscope.load.verdict import VerdictState

if TYPE_CHECKING:
    from chatscope.simulator.written import WrittenResponse, WrittenResponses

_NS: Final = 1e9


class ClientError(msgspec.Struct, frozen=True, kw_only=True):
    """By how much the client was late in a run of the same shape against the simulator, in seconds.

    Attributes:
        stamp: from the simulator's write of a token until the client's stamp. The error of `icl` and `tpot` is at most
            twice as large.
        ttft: the time that the client added to `ttft`: sending late, the network, and stamping late.
        icl: the difference between a gap and the simulator's, in either direction.
        arrival: from when a request was due until it arrived.
        verdict: the verdict on the run.
        simulator_late_p99: how late the simulator itself was, which is not an error of the client.
        simulator_held: whether the simulator sustained the load. If not, the client was not tested at its full load.
        tokens: how many tokens were compared.
    """

    stamp: Distribution
    ttft: Distribution
    icl: Distribution
    arrival: Distribution
    verdict: VerdictState
    simulator_late_p99: float
    simulator_held: bool
    tokens: int


def compare_stamps(records: Iterable[RequestRecord], written: WrittenResponses, verdict: VerdictState) -> ClientError:
    """Compare the stamps of measured requests with those of the server that wrote the responses."""
    pairs = [
        (record, written.responses[record.request_id])
        for record in records
        if record.window == "measured" and record.outcome == "ok" and record.request_id in written.responses
    ]
    pairs = [(record, response) for record, response in pairs if len(record.token_ns) == len(response.token_ns)]
    stamp = distribution(_stamp_errors(pairs))
    return ClientError(
        stamp=stamp,
        ttft=distribution(
            (record.token_ns[0] - record.due_ns - (response.token_ns[0] - response.arrived_ns)) / _NS
            for record, response in pairs
            if record.token_ns
        ),
        icl=distribution(_gap_errors(pairs)),
        arrival=distribution((response.arrived_ns - record.due_ns) / _NS for record, response in pairs),
        verdict=verdict,
        simulator_late_p99=written.late_p99,
        simulator_held=written.held,
        tokens=stamp.count,
    )


def _stamp_errors(pairs: Sequence[tuple[RequestRecord, WrittenResponse]]) -> Iterator[float]:
    for record, response in pairs:
        for ours, theirs in zip(record.token_ns, response.token_ns, strict=True):
            yield (ours - theirs) / _NS


def _gap_errors(pairs: Sequence[tuple[RequestRecord, WrittenResponse]]) -> Iterator[float]:
    for record, response in pairs:
        gaps = zip(pairwise(record.token_ns), pairwise(response.token_ns), strict=True)
        for (before, after), (wrote_before, wrote_after) in gaps:
            yield abs((after - before) - (wrote_after - wrote_before)) / _NS
