"""One request of a load test: encoded before it is due, sent once, read to its end, recorded.

Here: a request and its record. Not here: when it is sent (`worker`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chatscope import ChatClient, ChatError, ChatStream, Chunk, Completion
from chatscope.load.plan import LoadPlan
from chatscope.load.planned import PlannedRequest
from chatscope.load.records import RequestError, RequestRecord
from chatscope.load.setup import RunSetup
from chatscope.load.workload import WordScale, Workload
from chatscope.protocol.messages import SentMessage
from chatscope.protocol.usage import Usage


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """A request that is ready to be sent.

    `stream` has the encoded body; it is `None` if the response is not streamed.
    """

    planned: PlannedRequest
    messages: Sequence[SentMessage]
    parameters: Mapping[str, Any]
    stream: ChatStream | None


@dataclass(frozen=True, slots=True)
class Encoder:
    """Makes the requests of a run.

    Args:
        client: sends them; its block is open, and it makes one attempt.
        plan: the run's plan.
        workload: the content of the requests, with the run's seed and salt.
        scale: the length of words in tokens.
        profile: the server's name, if it is known.
        asks_for_usage: whether a stream reports its usage only on request.
    """

    client: ChatClient
    plan: LoadPlan
    workload: Workload
    scale: WordScale
    profile: str | None = None
    asks_for_usage: bool = False

    @classmethod
    def of(cls, client: ChatClient, setup: RunSetup) -> Encoder:
        """Return the encoder of a run."""
        return cls(client, setup.plan, setup.workload, setup.scale or WordScale(), setup.profile, setup.asks_for_usage)

    def encode(self, planned: PlannedRequest, salt_index: int, history: Sequence[SentMessage] = ()) -> EncodedRequest:
        """Encode a request. Nothing is sent.

        Args:
            planned: the request.
            salt_index: its number in the whole run, which makes its prompt unique.
            history: the messages before its own.

        Raises:
            ValueError: a parameter is invalid.
        """
        messages = [*history, *self.workload.messages(salt_index, planned.source, self.scale)]
        parameters = self.plan.parameters_for(planned.source, profile=self.profile)
        stream = None
        if self.plan.stream:
            if self.asks_for_usage and "stream_options" not in {*parameters, *(parameters.get("extra_body") or ())}:
                # Otherwise the client would ask for usage, and silently repeat a request that is refused for that.
                parameters["stream_options"] = {"include_usage": True}
            stream = self.client.stream(model=self.plan.model, messages=messages, **parameters)
        return EncodedRequest(planned, messages, parameters, stream)

    def encode_next_turn(
        self, request: EncodedRequest, record: RequestRecord, completion: Completion, salt_index: int
    ) -> EncodedRequest:
        """Encode the next turn of a session: the conversation so far, and one more message.

        Args:
            request: the previous turn, which has later ones.
            record: its record.
            completion: its response.
            salt_index: the number of the next turn in the whole run.

        Raises:
            ValueError: a parameter is invalid.
        """
        following, *later = request.planned.later
        source, so_far, new = following.source, _tokens_so_far(record), following.source.prompt_tokens
        encoded = self.encode(
            replace(following, later=tuple(later)),
            salt_index,
            [*request.messages, {"role": "assistant", "content": completion.text or ""}],
        )
        total = None if so_far is None or new is None else so_far + new
        return replace(encoded, planned=replace(encoded.planned, source=replace(source, prompt_tokens=total)))

    async def send(self, request: EncodedRequest, record: RequestRecord) -> Completion | None:
        """Send a request and record what happens. A failure is recorded, not raised.

        If cancelled, the connection is closed, and the record stays `unfinished` with what was received.

        Returns:
            The response; `None` if the request failed.
        """
        record.dispatched_ns = time.perf_counter_ns()
        try:
            if request.stream is None:
                completion = await self._complete(request, record)
            else:
                completion = await _read(request.stream, record)
            record.outcome = "ok"
            return completion
        except ChatError as error:
            record.outcome = "failed"
            record.error = RequestError.of(error)
            record.request_id = record.request_id or error.request_id
            return None
        finally:
            if record.finished_ns is None:
                record.finished_ns = time.perf_counter_ns()

    async def _complete(self, request: EncodedRequest, record: RequestRecord) -> Completion:
        completion: Completion = await self.client.complete(
            model=self.plan.model, messages=request.messages, **dict(request.parameters)
        )
        record.finished_ns = time.perf_counter_ns()
        _record_completion(record, completion)
        return completion


async def _read(stream: ChatStream, record: RequestRecord) -> Completion:
    """Read a stream to its end. The stamps are the times of the reads, not the times when this task runs."""
    try:
        async with stream:
            async for chunk in stream:
                if _is_past_reasoning(chunk):
                    record.answer_ns = stream.token_ns[-1]  # of the read that contained this chunk
                    break
            async for _ in stream:
                pass
            record.finished_ns = stream.timings.finished_ns
        return stream.completion
    finally:
        timings = stream.timings
        record.sent_ns, record.headers_ns = timings.written_ns, timings.headers_ns
        record.connect_ns = timings.connect_ns
        record.token_ns = list(timings.token_ns)
        record.request_id = stream.request_id
        _record_completion(record, stream.completion)


def _tokens_so_far(record: RequestRecord) -> int | None:
    """Return the length of a conversation after a response, by the server's count; `None` if it reports none."""
    if record.prompt_tokens is None or record.output_tokens is None:
        return None
    return record.prompt_tokens + record.output_tokens - (record.reasoning_tokens or 0)


def _is_past_reasoning(chunk: Chunk) -> bool:
    """Return whether a chunk has output other than reasoning."""
    for choice in chunk.choices:
        delta = choice.delta
        if delta.content or delta.refusal or delta.tool_calls or delta.function_call or delta.audio:
            return True
    return False


def _record_completion(record: RequestRecord, completion: Completion) -> None:
    record.finish_reason = completion.finish_reason
    record.request_id = record.request_id or completion.request_id
    usage: Usage | None = completion.usage
    if usage is not None:
        record.prompt_tokens, record.output_tokens = usage.prompt_tokens, usage.completion_tokens
        if usage.prompt_tokens_details is not None:
            record.cached_tokens = usage.cached_tokens
        if usage.completion_tokens_details is not None:
            record.reasoning_tokens = usage.reasoning_tokens
