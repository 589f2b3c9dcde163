"""A help desk's assistant: it summarises tickets in one line, and streams drafts of replies.

`test_tickets.py` tests it. Nothing here knows about tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Self

import anyio

from chatscope import APITimeoutError, ChatClient, ChatError, QuotaExceededError, RetryPolicy, StreamError, Timeouts

MODEL: Final = "gpt-4o-mini"
# Tickets summarised at once: a tenth of the smallest account's requests per minute.
AT_ONCE: Final = 50
# No customer waits for a draft, so long waits cost little.
RETRY: Final = RetryPolicy(attempts=4, initial=2, max=30, jitter=0)
TIMEOUTS: Final = Timeouts(first_token=20, idle=10, total=180)

SUMMARY: Final = "Summarise the ticket in one line of at most fifteen words."
DRAFT: Final = "Draft a friendly reply to the customer."


@dataclass(frozen=True, slots=True)
class Ticket:
    """A customer's message."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Summary:
    """A ticket in one line. If there is no summary, `text` is `None` and `problem` says why."""

    ticket: Ticket
    text: str | None
    problem: str | None = None


class Desk:
    """The assistant. Use it within its `async with` block."""

    def __init__(self) -> None:
        self._client = ChatClient(retry=RETRY, timeout=TIMEOUTS, max_concurrency=AT_ONCE)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def summarise(self, tickets: Iterable[Ticket]) -> list[Summary]:
        """Return a summary of each ticket, in their order. One failure does not affect the others.

        Raises:
            QuotaExceededError: The account has no money left, so no summary can succeed.
        """
        waiting = list(tickets)
        done: dict[Ticket, Summary] = {}

        async def summarise_one(ticket: Ticket) -> None:
            done[ticket] = await self._summary(ticket)

        try:
            async with anyio.create_task_group() as group:
                for ticket in waiting:
                    group.start_soon(summarise_one, ticket)
        except* QuotaExceededError as several:
            raise several.exceptions[0] from None
        return [done[ticket] for ticket in waiting]

    async def draft(self, ticket: Ticket, show: Callable[[str], None]) -> bool:
        """Show a draft as the model writes it, and return whether it is complete.

        If the stream breaks or falls silent, the text shown so far stays: half a draft is a good start.

        Raises:
            ChatError: The model failed before its first word.
        """
        async with self._client.stream(model=MODEL, messages=_messages(DRAFT, ticket)) as stream:
            try:
                async for chunk in stream:
                    show(chunk.text)
            except (StreamError, APITimeoutError) as error:
                if error.partial_text:
                    return False
                raise
        return stream.completion.finish_reason == "stop"

    async def _summary(self, ticket: Ticket) -> Summary:
        try:
            completion = await self._client.complete(model=MODEL, messages=_messages(SUMMARY, ticket), temperature=0)
        except QuotaExceededError:
            raise
        except ChatError as error:
            return Summary(ticket, None, str(error))
        return Summary(ticket, " ".join(completion.text.split()))


def _messages(instruction: str, ticket: Ticket) -> list[dict[str, str]]:
    return [{"role": "system", "content": instruction}, {"role": "user", "content": ticket.text}]
