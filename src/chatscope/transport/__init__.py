"""Sockets as an `httpx.AsyncBaseTransport`: HTTP/1.1 on asyncio, uvloop and trio, for any httpx client."""

from chatscope.transport.base import RESEND_EXTENSION, SENT_EXTENSION, ResendHook, SentHook
from chatscope.transport.decoding import ACCEPT_ENCODING
from chatscope.transport.pool import TransportStatistics
from chatscope.transport.transport import HTTPTransport
from chatscope.transport.witness import ReadWitness

__all__ = [
    "ACCEPT_ENCODING",
    "RESEND_EXTENSION",
    "SENT_EXTENSION",
    "HTTPTransport",
    "ReadWitness",
    "ResendHook",
    "SentHook",
    "TransportStatistics",
]
