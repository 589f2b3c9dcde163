"""The settings of a simulator: what it requires of clients, and its script of answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from chatscope.simulator.faults import Fault
from chatscope.simulator.plan import Plan, Response
from chatscope.simulator.replies import Answer, Reply
from chatscope.simulator.request import ChatRequest
from chatscope.simulator.tokenizer import TokenizerStyle

Script: TypeAlias = Answer | Sequence[Answer] | Callable[[ChatRequest], Answer]
"""One answer for every request, a sequence whose last answer is repeated, or a function from a request to its answer.

`[error(429)] * 3 + [Reply()]` fails three times, then succeeds.
"""


@dataclass(frozen=True, slots=True)
class Config:
    """What a simulator requires of its clients. By default it requires nothing.

    Raises:
        ValueError: A limit is below 1.
    """

    api_keys: frozenset[str] = field(default=frozenset(), repr=False)
    """The accepted keys, sent as `Authorization: Bearer` or `api-key`. If empty, keys are not checked."""
    models: tuple[str, ...] = ()
    """The models that exist. If empty, every name is a model."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_running: int | None = None
    """How many chat requests are served at a time. The others wait in order of arrival and are sent nothing, as on a
    server whose batch is full."""
    base_path: str | None = "/v1"
    """The path before `/chat/completions` and `/models`; any other path gets a 404. `None` accepts every path."""
    tokenizer: TokenizerStyle | None = None
    """Whose `/tokenize` there is, beside the base path without its `/v1`. OpenAI's own endpoint has none."""
    directives: bool = True
    """Whether a request may choose its own faults (see `directives`)."""
    keep_requests: int = 10_000
    """How many received requests are kept for inspection. This bounds memory in a long load test."""

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute", "max_running", "keep_requests"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")


DEFAULT_CONFIG = Config()


def answer_at(script: Script, played: int, request: ChatRequest) -> Answer:
    """Return a script's answer to a request, after it has answered `played` others."""
    if isinstance(script, Reply | Fault | Response | Plan):
        return script
    if callable(script):
        return script(request)
    return script[min(played, len(script) - 1)] if script else Reply()
