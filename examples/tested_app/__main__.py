"""Print a summary of each ticket. Each line of the standard input is a ticket.

echo "My bill is wrong." | python -m examples.tested_app
"""

from __future__ import annotations

import sys

import anyio

from examples.tested_app.tickets import Desk, Ticket


async def main() -> int:
    """Print the summaries, and return the exit code: the number of tickets without a summary."""
    tickets = [Ticket(number, line.strip()) for number, line in enumerate(sys.stdin, start=1) if line.strip()]
    async with Desk() as desk:
        summaries = await desk.summarise(tickets)
    for summary in summaries:
        print(f"{summary.ticket.number}: {summary.text or f'no summary: {summary.problem}'}")
    return sum(summary.text is None for summary in summaries)


sys.exit(anyio.run(main))
