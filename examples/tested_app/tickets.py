"""A help desk's assistant: one-line summaries of tickets, and drafts of answers that appear while they are written.

How it is tested is in `test_tickets.py`; nothing here knows of tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Self

import anyio

from chatscope import APITimeoutError, ChatClient, ChatError, QuotaExceededError, RetryPolicy, StreamError, Timeouts

MODEL: Final = "gpt-4o-mini"
# Tickets summarised at once: a tenth of what the smallest account may ask in a minute.
AT_ONCE: Final = 50
# A customer waits for no draft: patience is cheap here.
RETRY: Final = RetryPolicy(attempts=4, initial=2, max=30, jitter=0)
TIMEOUTS: Final = Timeouts(first_token=20, idle=10, total=180)

SUMMARY: Final = "Summarise the ticket in one line of at most fifteen words."
DRAFT: Final = "Draft a friendly answer to the customer."


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a customer wrote."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Summary:
    """A ticket in one line; `text` is None where no summary came of it, and `problem` says why."""

    ticket: Ticket
    text: str | None
    problem: str | None = None


class Desk:
    """The assistant, as long as its `async with` block is open."""

    def __init__(self) -> None:
        self._client = ChatClient(retry=RETRY, timeout=TIMEOUTS, max_concurrency=AT_ONCE)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def summarise(self, tickets: Iterable[Ticket]) -> list[Summary]:
        """Return a summary of each ticket, in their order. What goes wrong with one does not touch the others.

        Raises:
            QuotaExceededError: The account has no money left: there is no point in going on.
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
        """Show a draft piece by piece as it is written; return whether it is complete.

        What was shown before a stream broke off, or fell silent, stays: half a draft is a good start.

        Raises:
            ChatError: There is not even the first word.
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
