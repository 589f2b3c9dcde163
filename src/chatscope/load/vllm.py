"""A stage in the format of `vllm bench serve --save-detailed`, for scripts and dashboards that read that format.

Its times count from dispatch, as vLLM's do (`ttft_service`, `e2e_service`), not from when requests were due. Its ITLs
are gaps between chunks. Values that no server reported are 0, because the format has no "unknown".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from chatscope.load.metrics import FORMULAS, StageSummary, latency
from chatscope.load.records import RequestRecord
from chatscope.load.throughput import requests_in_flight

_LATENCIES: Final = {"ttft": "ttft_service", "tpot": "tpot", "itl": "icl", "e2el": "e2e_service"}
_WITH_MAX_CONCURRENCY: Final = {"client_queue_time": "queue", "e2el_including_client_queue": "e2e"}
"""Latencies that vLLM reports for open loops with limited concurrency."""


def vllm_result(
    summary: StageSummary,
    records: Sequence[RequestRecord],
    *,
    goodput_per_second: float | None,
    plan: dict[str, Any],
    started_at: str,
) -> dict[str, Any]:
    """Return the result of one stage, by vLLM's keys.

    Args:
        summary: the stage's summary.
        records: its measured requests.
        goodput_per_second: `None` if there are no objectives.
        plan: the plan's values.
        started_at: when the run started, in ISO format.
    """
    ok = [record for record in records if record.outcome == "ok"]
    inputs, outputs = _sum(ok, "prompt_tokens"), _sum(ok, "output_tokens")
    seconds = summary.seconds
    result = {
        "date": started_at[:19].replace("-", "").replace(":", "").replace("T", "-"),
        "endpoint_type": "openai-chat",
        "backend": "openai-chat",
        "label": "chatscope",
        "model_id": plan["model"],
        "tokenizer_id": plan["model"],
        "num_prompts": len(records),
        "request_rate": "inf" if summary.rate is None else summary.rate,
        "burstiness": plan["burstiness"],
        "max_concurrency": summary.concurrency or plan["max_concurrency"],
        "duration": seconds,
        "completed": len(ok),
        "failed": len(records) - len(ok),
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": _per(len(ok), seconds),
        "request_goodput": goodput_per_second,
        "output_throughput": _per(outputs, seconds),
        "total_token_throughput": _per(inputs + outputs, seconds),
        "max_output_tokens_per_s": _peak_tokens(ok),
        "max_concurrent_requests": max((running for _, running in requests_in_flight(records)), default=0),
        "rtfx": 0.0,  # of speech
    }
    is_limited = summary.concurrency is None and plan["max_concurrency"] is not None
    for name, ours in (_LATENCIES | (_WITH_MAX_CONCURRENCY if is_limited else {})).items():
        result |= _statistics(ok, name, ours)
    return result | _details(records)


def _details(records: Sequence[RequestRecord]) -> dict[str, Any]:
    """Return the values that `--save-detailed` adds, one per request."""
    return {
        "input_lens": [record.prompt_tokens or 0 for record in records],
        "output_lens": [record.output_tokens or 0 for record in records],
        "ttfts": [_first(FORMULAS["ttft_service"].values(record)) for record in records],
        "itls": [list(FORMULAS["icl"].values(record)) for record in records],
        "latencies": [_first(FORMULAS["e2e_service"].values(record)) for record in records],
        "queue_times": [record.queued_ns / 1e9 for record in records],
        "start_times": [(record.dispatched_ns or record.due_ns) / 1e9 for record in records],
        "generated_texts": [""] * len(records),
        "errors": ["" if record.error is None else record.error.message for record in records],
    }


def _statistics(ok: Sequence[RequestRecord], name: str, ours: str) -> dict[str, float]:
    found = latency(ok, ours)
    values = {
        "mean": found.mean,
        "median": found.percentile(50),
        "std": found.std,
        "p99": found.percentile(99),
    }
    return {f"{statistic}_{name}_ms": (value or 0.0) * 1e3 for statistic, value in values.items()}


def _peak_tokens(ok: Sequence[RequestRecord]) -> float:
    """Return the most output tokens in any second. The tokens of a response are spread evenly over its chunks."""
    start = min((record.dispatched_ns or record.due_ns for record in ok), default=0)
    per_second: defaultdict[int, float] = defaultdict(float)
    for record in ok:
        for stamp in record.token_ns:
            per_second[(stamp - start) // 10**9] += (record.output_tokens or 0) / len(record.token_ns)
    return max(per_second.values(), default=0.0)


def _sum(records: Sequence[RequestRecord], name: str) -> int:
    return sum(getattr(record, name) or 0 for record in records)


def _first(values: Sequence[float]) -> float:
    return values[0] if values else 0.0


def _per(count: float, seconds: float) -> float:
    return count / seconds if seconds else 0.0
