"""Values: the server that a client talks to, and a request that is ready to send. Nothing here sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from chatscope._http.base import Sender
from chatscope._limits.limiter import Limiter
from chatscope.errors import BadRequestError, ChatError, UnprocessableEntityError
from chatscope.transport.request_head import PostTemplate

_INCLUDE_USAGE: Final = b',"stream_options":{"include_usage":true}}'


@dataclass(slots=True)
class Server:
    """The server of a client: how to reach it, and what its responses have shown about it.

    Attributes:
        sender: sends the requests.
        secret: the key, which is redacted from errors.
        limiter: shared by all requests to this server.
        rejects_include_usage: whether it has rejected `include_usage`, which is then no longer sent.
    """

    sender: Sender
    secret: str
    limiter: Limiter
    rejects_include_usage: bool = False


class PreparedRequest(msgspec.Struct, frozen=True, gc=False):
    """A request, checked and encoded.

    Attributes:
        post: everything but the body.
        body: the JSON body.
        adds_usage: whether `stream_options.include_usage` is added to it, as long as the server accepts it.
        model: the model's name.
        max_tokens: the limit on the output, for estimates.
        choices: how many choices were requested.
    """

    post: PostTemplate
    body: bytes
    adds_usage: bool
    model: str
    max_tokens: int | None
    choices: int

    def body_with_usage(self) -> bytes:
        """Return the body with `include_usage` added."""
        return self.body[:-1] + _INCLUDE_USAGE


def refuses_include_usage(error: ChatError) -> bool:
    """Return whether a server rejected the request because of `include_usage`."""
    if not isinstance(error, BadRequestError | UnprocessableEntityError):
        return False
    words = f"{error.message} {error.param} {error.body}"
    return "include_usage" in words or "stream_options" in words
