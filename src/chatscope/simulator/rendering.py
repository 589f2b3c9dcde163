"""Renders replies in OpenAI's format: as the chunks of a stream, or as one completion.

Both are made from the same tokens, so text, usage, limits and log probabilities agree. Not here: the content of a reply
(`replies`), and faults (`faults`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any

import msgspec

from chatscope.simulator.faults import DONE, Fault
from chatscope.simulator.plan import Framing, Part, Plan, Response, Stage, Step, Wait
from chatscope.simulator.replies import Answer, Reply, ReplyChoice, Token, ToolCall, UsageIn, choices_of
from chatscope.simulator.request import ChatRequest

ARGUMENT_FIELDS = {"function": "arguments", "custom": "input"}


def plan(request: ChatRequest, answer: Answer) -> Plan:
    """Return the steps that answer a request."""
    response = respond_to(request, answer)
    return response if isinstance(response, Plan) else response.plan()


def respond_to(request: ChatRequest, answer: Answer) -> Response | Plan:
    """Return the response of an answer to a request.

    Raises:
        TypeError: `answer` is not an `Answer`: a script's function returned something else, or nothing.
    """
    match answer:
        case Reply():
            return render(request, answer, choices_of(request, answer))
        case Fault():
            return respond_to(request, Reply(faults=(answer,)))
        case Response() | Plan():
            return answer
    raise TypeError(f"an answer must be a Reply, a Fault, a Response or a Plan, not {answer!r}")


def render(request: ChatRequest, reply: Reply, choices: tuple[ReplyChoice, ...]) -> Response:
    """Return the HTTP response of a reply, with its faults applied in order."""
    streamed = request.parameters.stream if reply.stream is None else reply.stream
    longest = max(len(choice.tokens) for choice in choices)
    seconds = reply.first_token if streamed else reply.first_token + reply.between_tokens * max(0, longest - 1)
    headers = (
        ("openai-processing-ms", str(round(seconds * 1000))),
        ("openai-version", "2020-10-01"),
    )
    writer = _Writer(request, reply, choices)
    if streamed:
        stream_headers = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))
        response = Response(200, (*stream_headers, *headers), tuple(writer.stream()), Framing.CHUNKED)
    else:
        body = Part(msgspec.json.encode(writer.completion()))
        response = Response(200, (("content-type", "application/json"), *headers), (body,))
        response = response.interrupted(Stage.STATUS, Wait(seconds)) if seconds else response
    return reduce(lambda changed, fault: fault(changed), reply.faults, response)


class _Writer:
    """Renders choices as chunks and as a completion."""

    def __init__(self, request: ChatRequest, reply: Reply, choices: tuple[ReplyChoice, ...]) -> None:
        self._request = request
        self._parameters = request.parameters
        self._reply = reply
        self._choices = choices

    def stream(self) -> Iterator[Part | Step]:
        """Yield the chunks and waits of a stream. The choices alternate, token by token."""
        options = self._parameters.stream_options
        asked = self._reply.usage_in is UsageIn.ASKED and options is not None and bool(options.include_usage)
        sent = 0
        if self._reply.first_token:
            yield Wait(self._reply.first_token)
        for choice in self._choices:
            silent = any(token.call for token in choice.tokens[:1])
            delta = {"role": "assistant", "content": None if silent else "", "refusal": None}
            yield self._chunk([_chunk_choice(choice, delta)], Stage.ROLE, asked, sent)
        for turn in range(max(len(choice.tokens) for choice in self._choices)):
            if turn and self._reply.between_tokens:
                yield Wait(self._reply.between_tokens)
            for choice in self._choices:
                if turn < len(choice.tokens):
                    sent += 1
                    token = choice.tokens[turn]
                    part = _chunk_choice(choice, self._delta(choice, token), logprobs=self._logprobs([token]))
                    yield self._chunk([part], Stage.CONTENT, asked, sent)
        for choice in self._choices:
            part = _chunk_choice(choice, {}, choice.finish_reason)
            yield self._chunk([part], Stage.FINISH, asked, sent, last=choice is self._choices[-1])
        if asked:
            yield _event(
                {**self._envelope("chat.completion.chunk"), "choices": [], "usage": self._usage()}, Stage.USAGE
            )
        yield Part(DONE, Stage.DONE)

    def completion(self) -> dict[str, Any]:
        """Return the whole completion."""
        choices = [
            {
                "index": choice.index,
                "message": self._message(choice),
                "logprobs": self._logprobs(choice.tokens),
                "finish_reason": choice.finish_reason,
            }
            for choice in self._choices
        ]
        return {**self._envelope("chat.completion"), "choices": choices, "usage": self._usage()}

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._request.number:08d}",
            "object": kind,
            "created": self._request.created,
            "model": self._parameters.model,
            "service_tier": self._parameters.service_tier or "default",
            "system_fingerprint": "fp_simulator",
        }

    def _chunk(
        self, choices: list[dict[str, Any]], stage: Stage, asked: bool, sent: int, *, last: bool = False
    ) -> Part:
        chunk = {**self._envelope("chat.completion.chunk"), "choices": choices}
        match self._reply.usage_in:
            case UsageIn.ASKED if asked:
                chunk["usage"] = None
            case UsageIn.EVERY:
                chunk["usage"] = self._usage(sent)
            case UsageIn.FINISH if last:
                chunk["usage"] = self._usage()
            case UsageIn.X_GROQ if last:
                chunk["x_groq"] = {"id": f"req_{self._request.number:08d}", "usage": self._usage()}
            case _:
                pass
        return _event(chunk, stage)

    def _usage(self, sent: int | None = None) -> dict[str, Any]:
        tokens = [token for choice in self._choices for token in choice.tokens]
        given = self._reply.usage or {}
        completion = given.get("completion_tokens", len(tokens) if sent is None else sent)
        prompt = given.get("prompt_tokens", self._request.prompt_tokens)
        reasoning = sum(token.kind == self._reply.reasoning_field for token in tokens)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": min(self._reply.cached_tokens, prompt), "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": min(reasoning, completion),
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
            **given,
        }

    def _opening(self, choice: ReplyChoice, call: ToolCall, index: int) -> dict[str, Any]:
        inner = {"name": call.name, ARGUMENT_FIELDS[call.type]: ""}
        return {"id": f"call_{self._request.number:08d}_{choice.index}_{index}", "type": call.type, call.type: inner}

    def _delta(self, choice: ReplyChoice, token: Token) -> dict[str, Any]:
        call = token.call
        if call is None:
            return {token.kind: token.text}
        if token.opens:
            part = self._opening(choice, call, token.call_index)
        else:
            part = {call.type: {ARGUMENT_FIELDS[call.type]: token.text}}
        return {"tool_calls": [{"index": token.call_index, **part}]}

    def _message(self, choice: ReplyChoice) -> dict[str, Any]:
        texts: dict[str, str] = {}
        calls: list[dict[str, Any]] = []
        for token in choice.tokens:
            call = token.call
            if call is None:
                texts[token.kind] = texts.get(token.kind, "") + token.text
            elif token.opens:
                calls.append(self._opening(choice, call, token.call_index))
            else:
                calls[token.call_index][call.type][ARGUMENT_FIELDS[call.type]] += token.text
        silent = None if calls or "refusal" in texts else ""
        message: dict[str, Any] = {"role": "assistant", "content": silent, "refusal": None, "annotations": [], **texts}
        return {**message, "tool_calls": calls} if calls else message

    def _logprobs(self, tokens: tuple[Token, ...] | list[Token]) -> dict[str, Any] | None:
        if not self._parameters.logprobs:
            return None
        wanted = self._parameters.top_logprobs or 0
        content = [_logprob(token.text, wanted) for token in tokens if token.kind == "content"]
        return {"content": content, "refusal": None}


def _event(chunk: dict[str, Any], stage: Stage) -> Part:
    return Part(b"data: %b\n\n" % msgspec.json.encode(chunk), stage)


def _chunk_choice(
    choice: ReplyChoice,
    delta: dict[str, Any],
    finish_reason: str | None = None,
    *,
    logprobs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _logprob(text: str, wanted: int) -> dict[str, Any]:
    """Return made-up log probabilities: the token itself at -0.1, alternatives a nat apart."""

    def entry(candidate: str, logprob: float) -> dict[str, Any]:
        return {"token": candidate, "logprob": logprob, "bytes": list(candidate.encode())}

    top = [entry(text if rank == 0 else f"{text}~{rank}", -0.1 - rank) for rank in range(wanted)]
    return {**entry(text, -0.1), "top_logprobs": top}
