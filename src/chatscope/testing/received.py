"""What the fake endpoint remembers of a request. Not here: who answers it (`endpoint`)."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from chatscope.simulator import Received


@dataclass(slots=True, eq=False, kw_only=True)
class ReceivedRequest(Received):
    """A request to the fake endpoint, with the attributes of one to the simulator: `json`, `headers`, `outcome` ...

    `outcome` tells whether the client read the answer to its end or left before it.
    """

    request: httpx.Request
    """The request as httpx has it."""

    @property
    def url(self) -> httpx.URL:
        """Where it went."""
        return self.request.url
