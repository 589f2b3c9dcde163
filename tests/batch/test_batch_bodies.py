"""The bodies of recorded responses: as `Completion.to_dict` has them, whichever way they are encoded."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.support.tables import each_row

from chatscope import Completion
from chatscope.batch import bodies
from chatscope.protocol import response
from chatscope.protocol.decode import completion_from

TOKEN = {"token": "Hi", "logprob": -0.1, "bytes": [72], "top_logprobs": [{"token": "Ho", "logprob": None}]}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

TWINS: list[tuple[type[msgspec.Struct], type[msgspec.Struct]]] = [
    (response.Completion, bodies.CompletionBody),
    (response.Choice, bodies.ChoiceBody),
    (response.CompletionMessage, bodies.MessageBody),
    (response.Logprobs, bodies.LogprobsBody),
    (response.TokenLogprob, bodies.TokenLogprobBody),
    (response.TopLogprob, bodies.TopLogprobBody),
]


def completion_with(message: dict[str, Any], **more: Any) -> Completion:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"} | message, "finish_reason": "stop"}
    return completion_from({"id": "1", "choices": [choice | more.pop("choice", {})], **more})


@each_row("struct, twin", TWINS)
def test_no_field_of_a_response_is_forgotten(struct: type[msgspec.Struct], twin: type[msgspec.Struct]) -> None:
    wanted = {field.name: field.encode_name for field in msgspec.structs.fields(struct)}
    kept = {field.name: field.encode_name for field in msgspec.structs.fields(twin)}
    hidden = {name for name, encoded in wanted.items() if encoded.startswith("<")}
    assert {name: encoded for name, encoded in kept.items() if name not in hidden} == {
        name: encoded for name, encoded in wanted.items() if name not in hidden
    }


@each_row(
    "completion, is_direct",
    [
        (Completion(), True),
        (completion_with({}), True),
        (completion_with({"refusal": "", "reasoning": "Hm", "annotations": [], "audio": {"id": "a"}}), True),
        (completion_with({"reasoning_content": "Hm", "reasoning_details": [{"text": "Hm"}]}), True),
        (completion_with({}, usage={"prompt_tokens": 3, "completion_tokens": 0}, moderation={"a": 1}), True),
        (completion_with({}, choice={"logprobs": {"content": [TOKEN], "refusal": None}}), True),
        (completion_with({"role": None, "content": None}), False),
        (completion_with({"tool_calls": [CALL]}), False),
        (completion_with({"content": [{"type": "text", "text": "Hi"}]}), False),
        (completion_with({"unknown": 1}), False),
        (completion_with({}, choice={"unknown": 1}, usage={"prompt_tokens": 3, "unknown": 2}), False),
        (completion_with({}, choice={"logprobs": {"content": [TOKEN | {"unknown": 1}]}}), False),
        (Completion(choices=[response.Choice(message=response.CompletionMessage(role=""))]), False),
    ],
)
def test_a_body_is_what_to_dict_returns(completion: Completion, *, is_direct: bool) -> None:
    body = bodies.body_of(completion)
    assert msgspec.json.encode(body) == msgspec.json.encode(completion.to_dict())
    assert isinstance(body, bodies.CompletionBody) is is_direct
