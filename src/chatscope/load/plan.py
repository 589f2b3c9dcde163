"""The settings of a load test: plain values, checked when they are created, and the stages that follow from them.

Here: `LoadPlan`, and the requests of each stage. Not here: running it (`run`).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from chatscope._validation import check_count, check_model, check_rate, check_seconds, check_wait
from chatscope.load.objectives import STREAMED, Objective
from chatscope.load.planned import LoadStage, PlannedRequest
from chatscope.load.prompts import PromptSource
from chatscope.load.schedule import SECOND, ArrivalProcess, OpenLoop, Windows, due_offsets
from chatscope.load.traces import read_trace
from chatscope.load.workload import PROMPT_TOKENS, Workload
from chatscope.protocol.request import max_tokens_name

GRACE: Final = 5.0
"""Seconds that running requests get after the first Ctrl-C."""

TIMEOUT: Final = 600.0
"""Seconds of silence after which a request fails. An overloaded server may be silent for minutes before the first
token, and a load test must measure that wait."""

ConnectionMode = Literal["ahead", "on-demand"]
CONNECTION_MODES: Final = ("ahead", "on-demand")

SLOT_SECONDS: Final = 0.005
"""Seconds between the starts of two slots if there is no ramp. Sending a request takes a client a tenth of this time,
so no request delays another, and a hundred slots run after half a second. If all responses take equally long, later
requests are as far apart."""

SearchKind = Literal["rate", "concurrency"]
SEARCH_KINDS: Final = ("rate", "concurrency")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What to measure, and how.

    Exactly one of `concurrency`, `rate` and `trace` sets the load. A sequence of values makes a stage of each.

    Args:
        model: the model's name.
        base_url: the server; by default `OPENAI_BASE_URL`, or else OpenAI's own address.
        api_key: by default `OPENAI_API_KEY`; `""` sends no key.
        profile: the server's name, if its URL does not reveal it.
        concurrency: a closed loop with this many slots. A slot sends its next request when it is free, so a slow
            server gets fewer requests.
        rate: an open loop with this many requests per second, however slow the server is. With `turns` in the
            workload, new sessions start at this rate divided by `turns`.
        trace: a file of recorded arrivals and lengths (Mooncake, Azure, BurstGPT).
        arrivals: the gaps of an open loop: `constant`, `poisson` or `gamma`.
        burstiness: the shape of gamma gaps; less than 1 is burstier than Poisson.
        ramp: seconds over which the load of a stage grows to its full size. By default, an open loop has no ramp, and
            the slots of a closed loop start 5 ms apart, because requests sent at once delay each other in the client.
        time_scale: stretches the arrivals of an open loop or trace: 0.5 is twice as fast.
        max_concurrency: how many requests of an open loop or trace may run at a time; others wait for a slot.
        requests: the most requests that a stage sends.
        duration: seconds for which a stage sends. Give at least one of these two, except for a trace, which has an end.
        warmup: seconds at the start of a stage that are not measured.
        cooldown: seconds at its end that are not measured; needs `duration`.
        workload: the content of the requests.
        seed: equal seeds give equal schedules and lengths.
        salt: determines the prompts. Equal salts give equal prompts, which a server may have cached. By default random.
        connections: `ahead` opens them before the requests need them, so that no latency includes connecting. With
            `on-demand`, a request that finds no idle one connects, and its latencies include that.
        stream: whether to request streams. Otherwise there is no time of a first token.
        parameters: parameters of every request, as for `ChatClient.stream`; also `extra_body`.
        slos: objectives such as `ttft:p99<500ms` and `failed<1%`.
        search: find the highest `rate` or `concurrency` that meets every objective. The first stage has the given
            value, or 1. Each further stage doubles the load, or halves the interval between success and failure.
        calibrate: measure first how many tokens a word has, by the server's tokenizer, or else by the usage of two
            small requests.
        timeout: seconds of silence after which a request fails.
        grace: seconds that running requests get when the run is stopped.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    model: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    profile: str | None = None
    concurrency: int | Sequence[int] | None = None
    rate: float | Sequence[float] | None = None
    trace: Path | None = None
    arrivals: ArrivalProcess = "poisson"
    burstiness: float = 1.0
    ramp: float | None = None
    time_scale: float = 1.0
    max_concurrency: int | None = None
    requests: int | None = None
    duration: float | None = None
    warmup: float = 0.0
    cooldown: float = 0.0
    workload: Workload = field(default_factory=Workload)
    seed: int = 0
    salt: str | None = None
    connections: ConnectionMode = "ahead"
    stream: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)
    slos: Sequence[str] = ()
    search: SearchKind | None = None
    calibrate: bool = True
    timeout: float = TIMEOUT
    grace: float = GRACE

    def __post_init__(self) -> None:
        check_model(self.model)
        self._check_load()
        for name in ("requests", "max_concurrency"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name)
        for slots in _values(self.concurrency):
            check_count(slots, "concurrency")
        for name in ("duration", "timeout"):
            check_seconds(getattr(self, name), name)
        for name in ("warmup", "cooldown", "grace"):
            check_wait(getattr(self, name), name)
        if self.ramp is not None:
            check_wait(self.ramp, "ramp")
        if self.duration is not None:
            check_wait(self.duration, "duration")  # a schedule without an end cannot be made
        check_rate(self.time_scale, "time_scale")
        if self.connections not in CONNECTION_MODES:
            raise ValueError(f"connections must be one of {', '.join(CONNECTION_MODES)}, not {self.connections!r}")
        self._check_arrivals()
        self._check_lengths()
        if not self.stages():  # created here, because shapes and objectives check themselves
            raise ValueError("give at least one value of concurrency or rate")
        for objective in self.objectives():
            if objective.metric in STREAMED and not self.stream:
                raise ValueError(f"slo {objective.text!r} needs streams: a whole response has no time of a first token")
        for name in ("messages", "model", "stream"):
            if name in self.parameters:
                raise ValueError(f"parameters must not have {name!r}: the plan sets it")

    def _check_load(self) -> None:
        given = [name for name in ("concurrency", "rate", "trace") if getattr(self, name) is not None]
        if self.search is None:
            if len(given) != 1:
                raise ValueError("give exactly one of concurrency, rate and trace")
            return
        if self.search not in SEARCH_KINDS:
            raise ValueError(f"search must be one of {', '.join(SEARCH_KINDS)}, not {self.search!r}")
        if given not in ([], [self.search]):
            raise ValueError(f"a search for {self.search} starts at {self.search}: do not give {' or '.join(given)}")
        if len(_values(getattr(self, self.search))) > 1:
            raise ValueError(f"a search starts at one value of {self.search}")
        if not self.slos:
            raise ValueError("search needs slos: it looks for the highest load that meets them")

    def _check_lengths(self) -> None:
        if self.requests is None and self.duration is None and self.trace is None:
            raise ValueError("give requests or duration: the load does not end by itself")
        if self.duration is None and self.cooldown:
            raise ValueError("cooldown needs duration: without it, the end of a stage is not known beforehand")
        if self.duration is not None and self.warmup + self.cooldown >= self.duration:
            raise ValueError("warmup and cooldown leave nothing of duration to measure")
        if self.workload.turns > 1 and self.trace is not None:
            raise ValueError("turns must be 1 with a trace: a trace has sessions of its own")

    def _check_arrivals(self) -> None:
        """Check that every option of the arrivals has an effect."""
        is_closed = self.concurrency is not None or self.search == "concurrency"
        if is_closed and self.max_concurrency is not None:
            raise ValueError("max_concurrency is for open loops: concurrency limits a closed one already")
        if is_closed and self.time_scale != 1:
            raise ValueError("time_scale is for open loops and traces: a closed loop has no arrivals")
        if (is_closed or self.trace is not None) and self.arrivals != "poisson":
            raise ValueError("arrivals is for a rate: a closed loop has no arrivals, and a trace has its own")
        if self.trace is not None and self.ramp is not None:
            raise ValueError("ramp is for a rate or concurrency: a trace has its own arrivals")
        if self.trace is not None and (self.workload.output_tokens or self.workload.prompt_tokens != PROMPT_TOKENS):
            raise ValueError("prompt_tokens and output_tokens are not for a trace: its rows have lengths of their own")
        if self.burstiness != 1 and self.arrivals != "gamma":
            raise ValueError("burstiness is the shape of gamma arrivals: give arrivals as gamma")

    def stages(self) -> list[LoadStage]:
        """Return the stages in the order in which they run. For a search, return the first stage."""
        if self.trace is not None:
            return [LoadStage(0, trace=self.trace)]
        loads = _values(self.rate if self.concurrency is None else self.concurrency)
        if self.search is not None:
            loads = loads or (1,)
        return [self.stage_at(index, load, loads[:index].count(load)) for index, load in enumerate(loads)]

    def stage_at(self, index: int, load: float, repetition: int = 0) -> LoadStage:
        """Return a stage of `load` slots or requests per second; `repetition` stages had the same load before it."""
        if self.concurrency is not None or self.search == "concurrency":
            return LoadStage(index, concurrency=int(load), repetition=repetition)
        shape = OpenLoop(load, self.arrivals, self.burstiness, self.ramp or 0.0, self.time_scale)
        return LoadStage(index, shape=shape, repetition=repetition)

    def slot_offset(self, slot: int, slots: int) -> int:
        """Return when a slot of a closed loop starts, in nanoseconds from the start of the stage."""
        seconds = SLOT_SECONDS * slot if self.ramp is None else self.ramp * slot / slots
        return round(seconds * SECOND)

    def objectives(self) -> list[Objective]:
        """Return the objectives of `slos`."""
        return [Objective.parse(text) for text in self.slos]

    def windows(self) -> Windows:
        """Return the windows of a stage."""
        end = None if self.duration is None else round((self.duration - self.cooldown) * SECOND)
        return Windows(round(self.warmup * SECOND), end)

    def schedule(self, stage: LoadStage, workload: Workload) -> Iterator[PlannedRequest]:
        """Yield the requests of a stage, in order: the same for equal seeds, on every loop.

        Raises:
            ValueError: a file of prompts or a trace cannot be read.
        """
        if stage.trace is not None:
            yield from self._traced(stage.trace, workload)
            return
        offsets: Iterator[int | None] = itertools.repeat(None)
        if stage.shape is not None:
            seed = f"{self.seed}:arrivals:{stage.index}"
            sessions = replace(stage.shape, rate=stage.shape.rate / workload.turns)  # each sends one request per turn
            offsets = due_offsets(sessions, seed, requests=self.requests, duration=self.duration)
        index = 0
        for number, (offset, sources) in enumerate(zip(offsets, workload.sessions(), strict=False)):
            session = None if workload.turns == 1 else str(number)
            kept = sources if self.requests is None else sources[: self.requests - index]
            first, *later = (PlannedRequest(index + n, None, source, session) for n, source in enumerate(kept))
            yield replace(first, offset=offset, later=tuple(later))
            index += len(kept)
            if index == self.requests:
                return

    def _traced(self, path: Path, workload: Workload) -> Iterator[PlannedRequest]:
        prompts = workload.prompt_sources() if workload.prompts is not None else itertools.repeat(None)
        end = None if self.duration is None else self.duration * SECOND
        rows = zip(itertools.islice(read_trace(path), self.requests), prompts, strict=False)
        turns: Counter[str] = Counter()
        index = -1
        for index, (row, prompt) in enumerate(rows):
            offset = round(row.arrived * self.time_scale)
            if end is not None and offset >= end:
                return
            source = PromptSource.of_row(row)
            if row.session is not None:
                source = replace(source, turn=turns[row.session])
                turns[row.session] += 1
            if prompt is not None:
                source = replace(source, messages=prompt.messages, repetition=prompt.repetition)
            yield PlannedRequest(index, offset, source, row.session)
        if index < 0:
            raise ValueError(f"{path}: there is no row in it")

    def parameters_for(self, source: PromptSource, *, profile: str | None) -> dict[str, Any]:
        """Return the parameters of a request, including the requested length of the response.

        vLLM is asked for exactly this many tokens; other servers may end earlier.
        """
        parameters = dict(self.parameters)
        if source.output_tokens is not None:
            parameters[max_tokens_name(self.model)] = source.output_tokens
            if profile == "vllm":
                exact = {"ignore_eos": True, "min_tokens": source.output_tokens}
                parameters["extra_body"] = exact | dict(parameters.get("extra_body") or {})
        return parameters


def _values(given: Any) -> Sequence[Any]:
    """Return the values of an argument that is one value or a sequence of them."""
    if given is None:
        return ()
    return given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
