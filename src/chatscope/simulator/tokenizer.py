"""The `/tokenize` of servers that have one, by the simulator's token rule: each server's own request and response.

Here: the response to such a request. Not here: the token rule (`tokens`), and which simulators have one (`config`).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from chatscope.simulator.errors import error, respond
from chatscope.simulator.plan import Response
from chatscope.simulator.request import ChatRequest, RefusedError
from chatscope.simulator.tokens import tokenize

TokenizerStyle = Literal["vllm", "sglang", "llama.cpp"]

PATH: Final = "/tokenize"

_CONTEXT: Final = 131_072
"""The length of context that vLLM and SGLang report with a count."""


def tokenized(content: bytes, style: TokenizerStyle) -> Response:
    """Return the response to a request for tokens. vLLM counts messages with their template; the others only text.

    Raises:
        RefusedError: the server would refuse the request.
    """
    try:
        body = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise RefusedError(error(400, "We could not parse the JSON body of your request.")) from problem
    if style == "llama.cpp":
        return _respond({"tokens": _ids(str(body.get("content", "")))})
    if style == "vllm" and "messages" in body:
        request = ChatRequest.parse(msgspec.json.encode({"model": "m"} | body))
        return _respond(
            {"count": request.prompt_tokens, "max_model_len": _CONTEXT, "tokens": [0] * request.prompt_tokens}
        )
    if "prompt" not in body:
        raise RefusedError(error(400, "Field required", param="prompt"))
    tokens = _ids(str(body["prompt"]))
    return _respond({"count": len(tokens), "max_model_len": _CONTEXT, "tokens": tokens})


def _ids(text: str) -> list[int]:
    return [zlib.crc32(token.encode()) % 100_000 for token in tokenize(text)]


def _respond(body: Mapping[str, Any]) -> Response:
    return respond(200, msgspec.json.encode(body))
