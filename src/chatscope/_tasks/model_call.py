"""The model calls of one task: one, or one for each turn of its conversation, each retried until there is a response.

Not here: how a task runs and ends (`runner.py`, `outcome.py`), how a response is read (`_client`), and what later turns
send (`_conversation`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType

from anyio.lowlevel import checkpoint_if_cancelled

from chatscope._client.core import ClientCore
from chatscope._client.request import ClientRequest
from chatscope._client.server import PreparedRequest
from chatscope._client.stream_reader import AttemptObserver
from chatscope._conversation.loop import Conversation
from chatscope._limits.attempts import AttemptsLog
from chatscope._limits.concurrency import Slot
from chatscope._limits.retry import Retrier
from chatscope._limits.transient import is_transient
from chatscope._tasks.call_attempt import CallAttempt
from chatscope._tasks.handle import TaskState
from chatscope._tasks.hedging import Claim, Hedge, HedgedAttempt
from chatscope._tasks.outcome import CallSummary, Charge
from chatscope._tasks.prepared import PreparedTask
from chatscope.protocol.response import Completion


class ModelCalls:
    """All model calls of one task, in order.

    Args:
        core: sends them.
        prepared: what the task sends.
        state: receives the text.
        hedge_after: seconds without output after which a second attempt starts; `None` for never.
    """

    __slots__ = ("_calls", "_charges", "_core", "_hedge_after", "_prepared", "_state")

    def __init__(self, core: ClientCore, prepared: PreparedTask, state: TaskState, hedge_after: float | None) -> None:
        self._core = core
        self._prepared = prepared
        self._state = state
        self._hedge_after = hedge_after
        self._charges: list[Charge] = []
        self._calls: list[ModelCall] = []
        log = AttemptsLog(prepared.submitted_ns / 1e9)
        retrier = Retrier(prepared.policy, label=state.id, deadline=prepared.deadline, log=log)
        self._add(prepared.request, retrier, state.set_parts)

    @property
    def latest(self) -> ModelCall:
        """The latest call."""
        return self._calls[-1]

    def summary(self) -> CallSummary:
        """Return a summary of the calls so far."""
        call = self.latest
        return CallSummary(
            completion=self._completion(),
            charges=self._charges,
            request_id=call.request.request_id,
            requests=len(call.retrier.log),
            attempts=call.retrier.log.attempts(),
            sent_ns=call.sent_ns,
            headers_ns=call.request.headers_ns,
            written_ns=call.request.written_ns,
            connect_ns=call.request.connect_ns,
            token_ns=call.token_ns,
        )

    def run(self, slot: Slot) -> Awaitable[object]:
        """Make the calls. If cancelled, their connections are closed.

        Args:
            slot: the task's slot. It is paused while tools run, since a tool may ask the same adapter.

        Raises:
            Exception: what the last attempt of a call raised, or what the conversation ended with.
        """
        conversation = self._prepared.conversation
        # A plain function, as is the call's: each coroutine in the chain would cost every task some time.
        if conversation is None:
            return self.latest.run()
        return conversation.run(partial(self._take_turn, conversation), around_tools=partial(_Paused, slot))

    async def _take_turn(self, conversation: Conversation) -> Completion:
        if conversation.completions:
            prepared = self._prepared
            self._state.was_read = False  # no reader has seen any text of the new call
            request = self._core.prepare(
                prepared.model, conversation.messages, conversation.parameters, stream=prepared.streams
            )
            self._add(request, self.latest.retrier.successor(), _LaterText(self._state).on_text)
        completion = await self.latest.run()
        self._state.add_step(completion)
        return completion

    def _add(self, request: PreparedRequest, retrier: Retrier, on_text: Callable[[list[str]], None]) -> None:
        new_attempt = partial(CallAttempt, self._core, self._prepared, request, retrier)
        self._calls.append(ModelCall(new_attempt, retrier, self._state, on_text, self._charges, self._hedge_after))

    def _completion(self) -> Completion | None:
        """Return the last response with content, as far as it has arrived."""
        for call in reversed(self._calls):
            completion = call.completion
            if call is self._calls[0] or (completion is not None and completion.choices):
                return completion
        return None


class _Paused:
    """A block in which a slot is paused. If the block raises, the task is over and needs no slot."""

    __slots__ = ("_slot",)

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    async def __aenter__(self) -> None:
        self._slot.pause()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self._slot.resume()


class _LaterText:
    """Appends the text of a later turn to the text of the turns before it."""

    __slots__ = ("_before", "_state")

    def __init__(self, state: TaskState) -> None:
        self._state = state
        self._before = state.parts

    def on_text(self, parts: list[str]) -> None:
        text = self._state.parts
        published = len(text) - len(self._before)
        if text is self._before or published > len(parts):  # the turn's first text, or that of another attempt
            text, published = self._before.copy(), 0
        text += parts[published:]
        self._state.set_parts(text)


class ModelCall:
    """One request of a task: its attempts, each of them hedged if `hedge_after` is set.

    Args:
        new_attempt: returns a new attempt.
        retrier: spaces the attempts and records them.
        state: knows whether a reader has seen the text.
        on_text: called with the text parts whenever they have changed.
        charges: receives an entry for each attempt that the server may charge for.
        hedge_after: as for `ModelCalls`.

    Attributes:
        retrier: as given.
        sent_ns: when the latest attempt started; of a hedged pair, the first of the two.
    """

    __slots__ = (
        "_attempt",
        "_charges",
        "_hedge_after",
        "_new_attempt",
        "_on_text",
        "_state",
        "retrier",
        "sent_ns",
    )

    def __init__(
        self,
        new_attempt: Callable[[], CallAttempt],
        retrier: Retrier,
        state: TaskState,
        on_text: Callable[[list[str]], None],
        charges: list[Charge],
        hedge_after: float | None,
    ) -> None:
        self._new_attempt = new_attempt
        self.retrier = retrier
        self._state = state
        self._on_text = on_text
        self._charges = charges
        self._hedge_after = hedge_after
        self._attempt = new_attempt()
        self.sent_ns: int | None = None

    @property
    def request(self) -> ClientRequest:
        """The request of the attempt that delivers."""
        return self._attempt.request

    @property
    def completion(self) -> Completion | None:
        """The response so far; `None` until a response that is not streamed has arrived."""
        return self._attempt.completion

    @property
    def token_ns(self) -> Sequence[int]:
        """For each chunk with output of the model, when it was read."""
        reader = self._attempt.reader
        return reader.token_ns if reader is not None else ()

    def run(self) -> Awaitable[Completion]:
        """Make the attempts. If cancelled, their connections are closed.

        Raises:
            Exception: what the last attempt raised.
        """
        return self.retrier.run(self._run_attempt, should_retry=self._may_retry, on_retry=self._start_over)

    async def _run_attempt(self) -> Completion:
        attempt = self._attempt
        await attempt.request.acquire_permit()
        try:
            await checkpoint_if_cancelled()  # cancelled in the tick that granted the permit: do not send
            self.sent_ns = time.perf_counter_ns()
            self._state.started_ns = self._state.started_ns or self.sent_ns
            if self._hedge_after is None:
                return await self._read(attempt, self)
            second = partial(self._second, attempt)
            return await Hedge[Completion]().run(partial(self._compete, attempt), self._hedge_after, second)
        finally:
            attempt.request.release_permit()  # also if it was cancelled before its first step

    def on_first_output(self) -> None:
        """Do nothing: without a hedge, `on_text` is enough."""

    def on_text(self, parts: list[str]) -> None:
        """Pass on the text of an attempt that is not hedged."""
        self._on_text(parts)

    async def _read(self, attempt: CallAttempt, observer: AttemptObserver) -> Completion:
        """Read one attempt, and record it if the server may charge for it."""
        attempt.request.sent_ns = None
        try:
            completion = await attempt.read(observer)
        except BaseException as error:
            if attempt.may_be_charged(error):
                self._charges.append(Charge(attempt.completion, attempt.model))
            raise
        self._charges.append(Charge(completion, attempt.model))
        return completion

    def _second(self, first: CallAttempt) -> HedgedAttempt[Completion] | None:
        """Return the second attempt, if one is allowed."""
        return partial(self._compete, self._new_attempt(), is_second=True) if first.can_hedge else None

    async def _compete(self, attempt: CallAttempt, claim: Claim, *, is_second: bool = False) -> Completion:
        """Make one of two attempts. The first with output delivers, or the first that succeeds without any."""

        def delivers() -> bool:
            if claim():
                self._attempt = attempt
            return self._attempt is attempt

        if is_second:
            await attempt.request.acquire_permit(hedged=True)
        try:
            completion = await self._read(attempt, _HedgeObserver(attempt, delivers, self._on_text))
        finally:
            attempt.request.release_permit()
        delivers()
        return completion

    def _start_over(self) -> None:
        """Drop the text that no reader has seen: readers that start now see only the next attempt."""
        self._attempt.discard()
        self._on_text([])

    def _may_retry(self, error: Exception) -> bool:
        """Allow another attempt while there is no output, or no reader has seen it."""
        if self.token_ns and (self._state.was_read or not self.retrier.policy.restart_unread):
            return False
        return is_transient(error)


class _HedgeObserver:
    """Passes on the text of a hedged attempt once that attempt delivers."""

    __slots__ = ("_attempt", "_delivers", "_on_text")

    def __init__(
        self, attempt: CallAttempt, delivers: Callable[[], bool], on_text: Callable[[list[str]], None]
    ) -> None:
        self._attempt = attempt
        self._delivers = delivers
        self._on_text = on_text

    def on_first_output(self) -> None:
        """Claim the hedge."""
        self._delivers()

    def on_text(self, parts: list[str]) -> None:
        """Pass on the text."""
        if self._attempt.has_output and self._delivers():
            self._on_text(parts)
