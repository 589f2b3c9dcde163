"""Certificates of every kind for 127.0.0.1, and the TLS contexts that use them."""

from __future__ import annotations

import datetime as dt
import ssl
from functools import cached_property

import trustme

LONG_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)


class Certificates:
    """One authority that clients trust, and servers with certificates that are right or wrong."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    @cached_property
    def client(self) -> ssl.SSLContext:
        """Trust the authority and nobody else; speak HTTP/2 as well, which the transport must not fall for."""
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        self._authority.configure_trust(context)
        return context

    @cached_property
    def right(self) -> ssl.SSLContext:
        """What a client has no objections to."""
        return _serving(self._authority.issue_cert("127.0.0.1"))

    @cached_property
    def of_another_host(self) -> ssl.SSLContext:
        return _serving(self._authority.issue_cert("example.invalid"))

    @cached_property
    def expired(self) -> ssl.SSLContext:
        not_after = LONG_AGO + dt.timedelta(days=1)
        return _serving(self._authority.issue_cert("127.0.0.1", not_before=LONG_AGO, not_after=not_after))

    @cached_property
    def of_a_stranger(self) -> ssl.SSLContext:
        """Issued by an authority that nobody knows."""
        return _serving(trustme.CA().issue_cert("127.0.0.1"))

    @cached_property
    def self_signed(self) -> ssl.SSLContext:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with authority.cert_pem.tempfile() as cert, authority.private_key_pem.tempfile() as key:
            context.load_cert_chain(cert, key)
        return context

    @cached_property
    def asking_for_one(self) -> ssl.SSLContext:
        """A server that lets in only clients with a certificate."""
        context = _serving(self._authority.issue_cert("127.0.0.1"))
        context.verify_mode = ssl.CERT_REQUIRED
        self._authority.configure_trust(context)
        return context

    @cached_property
    def speaking_http2(self) -> ssl.SSLContext:
        """A server that knows no HTTP/1.1."""
        context = _serving(self._authority.issue_cert("127.0.0.1"))
        context.set_alpn_protocols(["h2"])
        return context


def _serving(leaf: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context
