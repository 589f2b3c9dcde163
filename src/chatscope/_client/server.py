"""Values: the server that a client talks to, and one request to it, ready to be sent. Nothing here sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from chatscope._http.base import Sender
from chatscope._limits.limiter import Limiter
from chatscope.errors import BadRequestError, ChatError, UnprocessableEntityError
from chatscope.transport.request_head import PostTemplate

_INCLUDE_USAGE: Final = b',"stream_options":{"include_usage":true}}'


@dataclass(slots=True)
class Server:
    """The server that a client talks to: how it is reached, and what its responses revealed.

    Attributes:
        sender: sends the requests.
        secret: the key, redacted from errors.
        limiter: what all requests to this server share.
        rejects_include_usage: found out once, then left out from the start.
    """

    sender: Sender
    secret: str
    limiter: Limiter
    rejects_include_usage: bool = False


class PreparedRequest(NamedTuple):
    """What is sent, checked and encoded.

    Attributes:
        post: everything but the body.
        body: the JSON body.
        adds_usage: whether `stream_options.include_usage` is added to it, as long as the server accepts it.
        model: the model's name.
        max_tokens: the limit on the output, for estimates.
        choices: how many choices were asked for.
    """

    post: PostTemplate
    body: bytes
    adds_usage: bool
    model: str
    max_tokens: int | None
    choices: int

    def body_with_usage(self) -> bytes:
        """Return the body with a request for the usage."""
        return self.body[:-1] + _INCLUDE_USAGE


def refuses_include_usage(error: ChatError) -> bool:
    """Tell whether a server refused the request for the usage."""
    if not isinstance(error, BadRequestError | UnprocessableEntityError):
        return False
    words = f"{error.message} {error.param} {error.body}"
    return "include_usage" in words or "stream_options" in words
