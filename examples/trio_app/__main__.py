"""Let several models race on trio.

    python -m examples.trio_app --simulate

Ctrl-C closes the connections; the exit code is 130.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Final

import trio

from chatscope import ChatClient, ChatError
from chatscope.simulator import ChatRequest, Reply, simulator
from examples.trio_app.race import race

MODELS: Final = ("gpt-4o", "gpt-4o-mini", "gpt-4.1-nano")
QUESTION: Final = "In one sentence: why a nursery?"

SECONDS: Final = 60
"""Limit for the whole race."""

FAILED: Final = 1
STOPPED: Final = 128
"""Shells expect the exit code 128 + number from a program that a signal stopped."""


def simulated(request: ChatRequest) -> Reply:
    """Respond fast or slowly, depending on the model."""
    model = request.parameters.model
    text = f"Because everything that starts in it has ended when it closes, says {model}."
    return Reply(text, first_token={"gpt-4o-mini": 0.2}.get(model, 1.0), between_tokens=0.03)


def show(text: str) -> None:
    """Print a part of the answer as it arrives."""
    print(text, end="", flush=True)


async def ask(models: Sequence[str], question: str, *, simulate: bool) -> int:
    """Run the race, print the answer, and return the exit code."""
    code = FAILED
    server: AbstractAsyncContextManager[str | None] = simulator(simulated) if simulate else nullcontext()
    async with server as base_url, ChatClient("simulated" if simulate else None, base_url=base_url) as client:
        try:
            with trio.fail_after(SECONDS):  # one deadline for everything inside
                winner = await race(client, models, question, show)
            print(f"\n[{winner.model} was first]")
            code = 0
        except* (ChatError, trio.TooSlowError) as failures:
            for error in failures.exceptions:
                print(f"no answer: {type(error).__name__}: {error}", file=sys.stderr)
    return code


async def until_signal(models: Sequence[str], question: str, *, simulate: bool) -> int:
    """Run `ask` until SIGINT or SIGTERM, and return the exit code.

    By default, trio raises KeyboardInterrupt at any point of the program, even during cleanup. A signal that cancels a
    nursery is an ordinary cancellation: it arrives only where code waits.
    """
    code = 0
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def cancel_at_signal() -> None:
                nonlocal code
                code = STOPPED + await anext(signals)
                nursery.cancel_scope.cancel()

            nursery.start_soon(cancel_at_signal)
            code = await ask(models, question, simulate=simulate)
            nursery.cancel_scope.cancel()
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.trio_app", description="Let several models race.")
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--simulate", action="store_true", help="use simulated models, not OPENAI_BASE_URL")
    arguments = parser.parse_args()
    models = tuple(dict.fromkeys(arguments.models))
    sys.exit(trio.run(partial(until_signal, models, arguments.question, simulate=arguments.simulate)))
