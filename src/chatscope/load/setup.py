"""Prepares a run before its first stage: the client, the salt, the length of words, and the server's profile.

Here: values that all workers of a run share. Not here: stages (`stages`), and their order (`run`).
"""

from __future__ import annotations

import os
import platform
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from chatscope import ChatClient, RetryPolicy, Timeouts
from chatscope.load.calibration import Calibration, calibrate
from chatscope.load.monitor import LoadMonitor
from chatscope.load.plan import LoadPlan
from chatscope.load.report import LoadReport, StageReport
from chatscope.load.search import run_verdict, search_result
from chatscope.load.workload import WordScale, Workload
from chatscope.profiles import find_profile
from chatscope.transport import HTTPTransport
from chatscope.version import __version__

_MAY_HOLD_KEYS: Final = frozenset({"extra_headers", "extra_query"})
"""Parameters whose values are not reported, because gateways accept keys there."""

_USER_INFO: Final = re.compile(r"(?<=://)[^/?#]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """The values that all workers of a run share.

    Args:
        plan: the run's plan.
        workload: the content of the requests, with the run's seed and salt.
        calibration: the length of words in tokens; `None` if it was not measured.
        profile: the server's name, if it is known.
        asks_for_usage: whether a stream reports its usage only on request.
        notices: what the report says about the preparation.
        started_at: when the run started, in ISO 8601.
    """

    plan: LoadPlan
    workload: Workload
    calibration: Calibration | None = None
    profile: str | None = None
    asks_for_usage: bool = True
    notices: Sequence[str] = ()
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def scale(self) -> WordScale | None:
        """The length of words in tokens, if it was measured."""
        return None if self.calibration is None else self.calibration.scale


def client_of(plan: LoadPlan, transport: httpx.AsyncBaseTransport | None) -> ChatClient:
    """Return a client that never retries and has no limits.

    Raises:
        ValueError: there is no key, or the address is invalid.
    """
    return ChatClient(
        plan.api_key,
        base_url=plan.base_url,
        timeout=Timeouts(read=plan.timeout),
        retry=RetryPolicy(attempts=1),
        backpressure=False,  # a refusal must not delay requests that are due
        profile=plan.profile,
        transport=transport,
    )


async def prepare_alone(plan: LoadPlan) -> RunSetup:
    """Prepare a run whose requests other processes send, with a separate client. As `prepare`."""
    transport = HTTPTransport()
    async with client_of(plan, transport) as client:
        return await prepare(plan, client, transport)


async def prepare(plan: LoadPlan, client: ChatClient, transport: httpx.AsyncBaseTransport) -> RunSetup:
    """Choose the salt, and measure the length of words. If cancelled, its requests are cancelled.

    Args:
        plan: the run's plan.
        client: sends the requests; its block is open.
        transport: the client's.

    Raises:
        ChatError: one of them failed.
    """
    profile = find_profile(plan.profile, client.base_url)
    setup = RunSetup(
        plan=plan,
        workload=replace(plan.workload, seed=plan.seed, salt=plan.salt or secrets.token_hex(8)),
        profile=profile.name,
        asks_for_usage=profile.asks_for_usage,
    )
    if not plan.calibrate or plan.workload.prompts is not None:
        return setup
    calibration = await calibrate(client, plan, setup.workload, transport)
    if calibration is not None:
        return replace(setup, calibration=calibration)
    return replace(setup, notices=["the server reports no usage, so prompts have one word for each requested token"])


def report_of(
    setup: RunSetup, stages: list[StageReport], monitor: LoadMonitor, notices: Sequence[str] = ()
) -> LoadReport:
    """Return the report of a run."""
    scale = setup.scale
    return LoadReport(
        verdict=run_verdict(setup.plan, stages),
        stages=stages,
        plan=plan_values(setup.plan),
        salt=setup.workload.salt,
        started_at=setup.started_at,
        host=host_values(),
        notices=[*setup.notices, *notices],
        tokens_per_word=None if scale is None else scale.per_word,
        prompt_overhead_tokens=None if scale is None else scale.overhead,
        lengths_counted_by=None if setup.calibration is None else setup.calibration.source,
        was_stopped=monitor.is_stopped,
        search=search_result(setup.plan, stages),
        records=monitor.records,
    )


def plan_values(plan: LoadPlan) -> dict[str, Any]:
    """Return a plan as plain values, without its key, and without values that may contain another key."""
    values = {each.name: getattr(plan, each.name) for each in fields(plan)}
    del values["api_key"], values["salt"]
    workload = asdict(plan.workload)
    for name in ("seed", "salt"):
        del workload[name]
    hidden = {
        name: dict.fromkeys(plan.parameters[name] or (), "***") for name in _MAY_HOLD_KEYS & plan.parameters.keys()
    }
    url = None if plan.base_url is None else _USER_INFO.sub("***@", plan.base_url)
    plain: dict[str, Any] = _plain(
        values | {"workload": workload, "parameters": {**plan.parameters, **hidden}, "base_url": url}
    )
    return plain


def _plain(value: Any) -> Any:
    """Return a value as JSON can represent it: any other value, such as a path or a type, as text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value)


def host_values() -> dict[str, Any]:
    """Return facts that may explain a difference between two machines."""
    return {
        "chatscope": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
    }
