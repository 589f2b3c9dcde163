"""Use the library as an application does.

    python -m examples.embedding --simulate

The application has one client, and shares it with all its code that uses models.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Final

import anyio

from chatscope import ChatClient
from chatscope.simulator import ChatRequest, Reply, simulator
from examples.embedding.summaries import Summarizer, SummaryError

TEXTS: Final = (
    "A nursery is a block that owns tasks. It ends only after all of them have ended.",
    "A cancel scope limits code in time. When it is cancelled, every wait inside it ends.",
)


def simulated(request: ChatRequest) -> Reply:
    """Respond with the first words of the text as a headline, and its last sentence."""
    *_, last = request.prompt.rstrip(".").split(". ")
    headline = " ".join(request.prompt.split()[:4])
    return Reply(json.dumps({"headline": headline, "sentences": [f"{last}."]}))


async def main(*, simulate: bool) -> int:
    """Print a summary of each text; return the exit code."""
    server: AbstractAsyncContextManager[str | None] = simulator(simulated) if simulate else nullcontext()
    async with server as base_url, ChatClient("simulated" if simulate else None, base_url=base_url) as client:
        try:
            summaries = await Summarizer(client).summarize_all(TEXTS)
        except SummaryError as error:
            print(error, file=sys.stderr)
            return 1
    for summary in summaries:
        print(f"{summary.headline}\n  {' '.join(summary.sentences)}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.embedding", description="Summarize two short texts.")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio", help="default: %(default)s")
    parser.add_argument("--simulate", action="store_true", help="use a simulated model, not OPENAI_BASE_URL")
    arguments = parser.parse_args()
    sys.exit(anyio.run(partial(main, simulate=arguments.simulate), backend=arguments.backend))
