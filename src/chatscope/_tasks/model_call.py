"""One model call of a task: its attempts, each hedged if that is asked for, until there is one completion.

What the task is and what becomes of it is decided in `running.py`; how a reply is read, in `stream.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import anyio.abc

from chatscope._client.completion import fetch
from chatscope._client.core import ClientCore
from chatscope._client.request import ClientRequest
from chatscope._client.stream_reader import AttemptObserver, StreamReader
from chatscope._limits.attempts import AttemptsLog
from chatscope._limits.retry import Retrier, RetryPolicy
from chatscope._limits.timeouts import Deadline, Timeouts
from chatscope._limits.transient import is_transient
from chatscope._tasks.hedging import Race
from chatscope.protocol.messages import Message
from chatscope.protocol.response import Completion
from chatscope.protocol.usage import Usage
from chatscope.telemetry.observer import ObservedCall


class ModelCall:
    """A request that is checked and ready to be sent, and what has come of it.

    Args:
        core: prepares it.
        model, messages, parameters: what is asked; `stream=False` among the parameters asks for a plain reply.
        label: what the log calls the call.
        limit: the deadline that somebody above has set for it.
        priority: which requests go first where they wait for limits.
        hedge_after: seconds without output after which a second attempt is made beside the first; `None` for never.
        earlier: the call before it in the same conversation, whose log and telemetry it continues.

    Raises:
        ValueError: an argument can never be right.

    Attributes:
        retrier: runs the attempts.
        sent_ns: when the last attempt was begun, the earlier one of a hedged pair.
        on_start: called whenever an attempt has leave to be sent.
        on_text: called with the pieces of text whenever they have changed.
        was_read: tells whether anybody has seen any of them.
    """

    __slots__ = (
        "_core",
        "_hedge_after",
        "_lane",
        "_new_lane",
        "_overtaken",
        "on_start",
        "on_text",
        "retrier",
        "sent_ns",
        "was_read",
    )

    def __init__(
        self,
        core: ClientCore,
        model: str,
        messages: Sequence[Message],
        parameters: Mapping[str, Any],
        *,
        label: str,
        limit: Deadline | None = None,
        priority: float = 0.0,
        hedge_after: float | None = None,
        earlier: ModelCall | None = None,
    ) -> None:
        parameters = dict(parameters)
        streams = parameters.pop("stream", None) is not False
        policy = RetryPolicy.of(parameters.pop("retry", None), core.options.retry)
        self._core = core
        self._hedge_after = hedge_after
        log: AttemptsLog | None = None if earlier is None else earlier.retrier.log
        self.retrier: Retrier = Retrier(policy, label=label, deadline=limit, log=log)
        self.on_start: Callable[[], None] = lambda: None
        self.on_text: Callable[[list[str]], None] = lambda _: None
        self.was_read: Callable[[], bool] = lambda: False
        self._new_lane = partial(
            Lane,
            core,
            model,
            messages,
            parameters,
            streams=streams,
            timeouts=replace(core.options.timeouts, total=None),
            retrier=self.retrier,
            priority=priority,
        )
        self._lane = self._new_lane(observed=None if earlier is None else earlier.request.observed)
        self._overtaken: list[Lane] = []
        self.sent_ns: int | None = None

    @property
    def request(self) -> ClientRequest:
        """The request that delivers."""
        return self._lane.request

    @property
    def completion(self) -> Completion | None:
        """What has arrived so far; `None` of a plain reply, which comes whole or not at all."""
        return self._lane.completion

    @property
    def token_ns(self) -> Sequence[int]:
        """For each chunk that carried something written by the model, when it was read."""
        return self._lane.stream.token_ns if self._lane.stream is not None else ()

    @property
    def overtaken_usage(self) -> list[Usage]:
        """What the attempts used that lost a race, as far as it is known."""
        completions = [lane.completion for lane in self._overtaken]
        return [
            completion.usage for completion in completions if completion is not None and completion.usage is not None
        ]

    async def run(self, group: anyio.abc.TaskGroup) -> Completion:
        """Make the attempts; the two of a hedged pair run in the group given. Cancelled with it, the connections close.

        Raises:
            Exception: what the last attempt raised.
        """
        return await self.retrier.run(
            partial(self._attempt, group), should_retry=self._may_repeat, on_retry=self._start_over
        )

    async def _attempt(self, group: anyio.abc.TaskGroup) -> Completion:
        lane = self._lane
        await lane.request.acquire_permit()
        try:
            self.on_start()
            self.sent_ns = time.perf_counter_ns()
            if self._hedge_after is None:
                return await lane.read(_TextObserver(self.on_text))
            return await self._race(group, self._hedge_after)
        finally:
            lane.request.release_permit()  # also where it was cancelled before its first step

    async def _race(self, group: anyio.abc.TaskGroup, hedge_after: float) -> Completion:
        race = Race[Completion](group)
        race.enter(partial(self._compete, self._lane))
        with anyio.move_on_after(hedge_after):
            await race.decision()
        if race.is_open and self._core.limiter.can_hedge:
            second = self._new_lane(observed=self.request.observed)
            self._overtaken.append(second)
            race.enter(partial(self._compete, second))
        return await race.result()

    async def _compete(self, lane: Lane, wins: Callable[[], bool]) -> Completion:
        """Make one of two attempts. The first to bring output delivers, or to end well without any."""
        if lane is not self._lane:  # the second; the first has leave to be sent already
            await lane.request.acquire_permit(hedged=True)

        def delivers() -> bool:
            if not wins():
                return False
            if lane is not self._lane:
                self._overtaken.remove(lane)
                self._overtaken.append(self._lane)
                self._lane = lane
            return True

        def took(pieces: list[str]) -> None:
            if lane.has_output and delivers():
                self.on_text(pieces)

        completion = await lane.read(_TextObserver(took))
        delivers()
        return completion

    def _start_over(self) -> None:
        """Drop what nobody has seen: who begins to read now, reads the next attempt from its beginning."""
        self._lane.discard()
        self.on_text([])

    def _may_repeat(self, error: Exception) -> bool:
        """Allow another attempt as long as the model has said nothing, or nobody has seen what it said."""
        if self.token_ns and (self.was_read() or not self.retrier.policy.restart_unread):
            return False
        return is_transient(error)


class _TextObserver:
    """Hands on the text of an attempt."""

    __slots__ = ("on_text",)

    def __init__(self, on_text: Callable[[list[str]], None]) -> None:
        self.on_text = on_text

    def on_first_output(self) -> None:
        """See `AttemptObserver`: here the text says it all."""


class Lane:
    """One request of a call, and what it has brought. Arguments as for `ModelCall`."""

    __slots__ = ("_plain", "request", "stream")

    def __init__(
        self,
        core: ClientCore,
        model: str,
        messages: Sequence[Message],
        parameters: Mapping[str, Any],
        *,
        streams: bool,
        timeouts: Timeouts,
        retrier: Retrier,
        priority: float,
        observed: ObservedCall | None,
    ) -> None:
        self.request = core.request(
            model,
            messages,
            parameters,
            stream=streams,
            timeouts=timeouts,
            retrier=retrier,
            observed=observed,
            priority=priority,
        )
        self.stream = StreamReader(self.request) if streams else None
        self._plain: Completion | None = None

    @property
    def completion(self) -> Completion | None:
        """What has arrived."""
        return self.stream.completion if self.stream is not None else self._plain

    @property
    def has_output(self) -> bool:
        """Whether the model has said anything."""
        return self.stream.has_output if self.stream is not None else self._plain is not None

    async def read(self, observer: AttemptObserver) -> Completion:
        """Make one attempt. The caller holds a permit. If cancelled, the connection is closed.

        Args:
            observer: told of the output as it arrives.

        Raises:
            ChatError: no completion came of it.
        """
        if self.stream is not None:
            return await self.stream.read_to_end(observer)
        self._plain = await fetch(self.request)
        observer.on_text([self._plain.text] if self._plain.text else [])
        return self._plain

    def discard(self) -> None:
        """Forget what has arrived."""
        self._plain = None
        if self.stream is not None:
            self.stream.discard()
