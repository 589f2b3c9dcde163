"""The model calls of one task: one, or one per turn of its conversation, each retried until there is a response.

Not here: how a task runs and ends (`runner.py`, `outcome.py`), how a response is read (`_client`), and the messages of
later turns (`_conversation`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType

from anyio.lowlevel import checkpoint_if_cancelled

from chatscope._client.attempt_observer import AttemptObserver
from chatscope._client.core import ClientCore
from chatscope._client.request import ClientRequest
from chatscope._client.server import PreparedRequest
from chatscope._conversation.loop import Conversation
from chatscope._limits.concurrency import Slot
from chatscope._limits.retry import Retrier
from chatscope._limits.transient import is_transient
from chatscope._tasks.call_attempt import CallAttempt
from chatscope._tasks.handle import TaskState
from chatscope._tasks.hedging import Claim, Hedge, HedgedAttempt
from chatscope._tasks.prepared import PreparedTask
from chatscope.protocol.response import Completion


class ModelCalls:
    """The model calls of one task, one after the other; each attempt is hedged if `hedge_after` is set.

    Args:
        core: sends the requests.
        prepared: the prepared task.
        state: receives the text, and knows whether a reader has seen it.
        hedge_after: seconds without output after which a second attempt starts; `None` for never.

    Attributes:
        charged: for each request that the server may charge for, the response as far as it has arrived.
        retrier: spaces and records the attempts of the current call.
        sent_ns: when the latest attempt of the current call started; of a hedged pair, the first of the two.
    """

    __slots__ = (
        "_attempt",
        "_core",
        "_earlier",
        "_hedge_after",
        "_observer",
        "_prepared",
        "_request",
        "_state",
        "charged",
        "retrier",
        "sent_ns",
    )

    def __init__(self, core: ClientCore, prepared: PreparedTask, state: TaskState, hedge_after: float | None) -> None:
        self._core = core
        self._prepared = prepared
        self._state = state
        self._hedge_after = hedge_after
        self._earlier: Completion | None = None
        self.charged: list[Completion | None] = []
        retrier = Retrier(prepared.policy, state.id, prepared.deadline)
        self._begin(prepared.request, retrier, state)

    def _begin(self, request: PreparedRequest, retrier: Retrier, observer: AttemptObserver) -> None:
        """Start a call."""
        self._request = request
        self._observer = observer
        self.retrier = retrier
        self.sent_ns: int | None = None
        self._attempt = self._new_attempt()

    @property
    def request(self) -> ClientRequest:
        """The request of the current call's attempt that delivers."""
        return self._attempt.request

    @property
    def completion(self) -> Completion | None:
        """The last response with content, as far as it has arrived."""
        completion = self._attempt.completion
        if self._earlier is not None and (completion is None or not completion.choices):
            return self._earlier
        return completion

    @property
    def token_ns(self) -> Sequence[int]:
        """For each chunk of the current call with output of the model, when it was read."""
        reader = self._attempt.reader
        return reader.token_ns if reader is not None else ()

    def run(self, slot: Slot) -> Awaitable[object]:
        """Make the calls. If cancelled, their connections are closed.

        Args:
            slot: the task's slot. It is paused while tools run, since a tool may ask the same adapter.

        Raises:
            Exception: the error of a call's last attempt, or of the conversation.
        """
        conversation = self._prepared.conversation
        # A plain function, as is `_call`: each coroutine in the chain would cost every task some time.
        if conversation is None:
            return self._call()
        return conversation.run(partial(self._take_turn, conversation), around_tools=partial(_Paused, slot))

    async def _take_turn(self, conversation: Conversation) -> Completion:
        if conversation.completions:
            prepared = self._prepared
            self._state.was_read = False  # no reader has seen any text of the new call
            request = self._core.prepare(
                prepared.model, conversation.messages, conversation.parameters, stream=prepared.streams
            )
            self._earlier = self.completion
            self._begin(request, self.retrier.successor(), _LaterText(self._state))
        completion = await self._call()
        self._state.add_step(completion)
        return completion

    def _call(self) -> Awaitable[Completion]:
        return self.retrier.run(self._make_attempt, self._may_retry, self._start_over)

    async def _make_attempt(self) -> Completion:
        attempt, state = self._attempt, self._state
        if (acquiring := attempt.request.acquire_permit()) is not None:
            await acquiring
        try:
            if acquiring is not None or self.retrier.log.records:
                await checkpoint_if_cancelled()  # cancelled in the tick that granted the permit: do not send
            now_ns = time.perf_counter_ns()
            if state.started_ns is None:
                state.start(now_ns)
                if state.on_start is not None:
                    await checkpoint_if_cancelled()  # cancelled by `on_start`: do not send
            self.sent_ns = now_ns
            if self._hedge_after is None:
                return await attempt.read(self._observer)
            return await Hedge[Completion]().run(partial(self._compete, attempt), self._hedge_after, self._second)
        except BaseException:
            attempt.request.release_permit()  # which an attempt has released if it was read to its end
            raise

    def _new_attempt(self) -> CallAttempt:
        return CallAttempt(self._core, self._prepared, self._request, self.retrier, self.charged)

    def _second(self) -> HedgedAttempt[Completion] | None:
        """Return the second of two attempts, if it is allowed."""
        return partial(self._compete, self._new_attempt(), is_second=True) if self._core.limiter.can_hedge else None

    async def _compete(self, attempt: CallAttempt, claim: Claim, *, is_second: bool = False) -> Completion:
        """Make one of two attempts. The first with output delivers, or the first that succeeds without any."""

        def delivers() -> bool:
            if claim():
                self._attempt = attempt
            return self._attempt is attempt

        if is_second and (acquiring := attempt.request.acquire_permit(hedged=True)) is not None:
            await acquiring
        try:
            completion = await attempt.read(_HedgeObserver(attempt, delivers, self._observer))
        finally:
            attempt.request.release_permit()
        delivers()
        return completion

    def _start_over(self) -> None:
        """Drop the text that no reader has seen: readers that start now see only the next attempt."""
        self._attempt.discard()
        self._observer.on_text([])

    def _may_retry(self, error: Exception) -> bool:
        """Allow another attempt while there is no output, or no reader has seen it."""
        if self._state.started_ns is None:  # `on_start` refused: whatever it raised, nothing is sent
            return False
        if self.token_ns and (self._state.was_read or not self.retrier.policy.restart_unread):
            return False
        return is_transient(error)


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

    __slots__ = ("_before", "_state", "_text")

    def __init__(self, state: TaskState) -> None:
        self._state = state
        self._before = state.parts
        self._text: list[str] = []

    def on_first_output(self) -> None:
        """Do nothing: the text alone is published."""

    def on_text(self, parts: list[str]) -> None:
        """Publish the text."""
        published = len(self._text) - len(self._before)
        if not 0 <= published <= len(parts):  # the turn's first text, or that of another attempt
            self._text, published = [*self._before], 0
        self._text += parts[published:]
        self._state.on_text(self._text)


class _HedgeObserver:
    """Passes on the text of a hedged attempt once that attempt delivers."""

    __slots__ = ("_attempt", "_delivers", "_observer")

    def __init__(self, attempt: CallAttempt, delivers: Callable[[], bool], observer: AttemptObserver) -> None:
        self._attempt = attempt
        self._delivers = delivers
        self._observer = observer

    def on_first_output(self) -> None:
        """Claim the hedge."""
        self._delivers()

    def on_text(self, parts: list[str]) -> None:
        """Pass on the text."""
        if self._attempt.has_output and self._delivers():
            self._observer.on_text(parts)
