"""What the scripted endpoint records of a request. Not here: the endpoint itself (`endpoint`)."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from chatscope.simulator import Received


@dataclass(slots=True, eq=False, kw_only=True)
class ReceivedRequest(Received):
    """A request to the scripted endpoint. It has the attributes of a request to the simulator: `json`, `headers`, ...

    `outcome` says whether the client read the response to its end.
    """

    request: httpx.Request
    """The httpx request."""

    @property
    def url(self) -> httpx.URL:
        """The request's URL."""
        return self.request.url
