"""Let models race for an answer, on trio.

    python -m examples.trio_app --simulate

Ctrl-C stops it in good order: the connections are closed, and the exit code is 130.
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
"""How long all of it may take."""

FAILED: Final = 1
STOPPED: Final = 128
"""A shell knows from the exit code 128 + number which signal stopped a program."""


def simulated(request: ChatRequest) -> Reply:
    """Answer fast or slowly, by the model's name."""
    model = request.parameters.model
    text = f"So that whatever starts in it has ended when it closes, says {model}."
    return Reply(text, first_token={"gpt-4o-mini": 0.2}.get(model, 1.0), between_tokens=0.03)


def show(text: str) -> None:
    """Print a piece of the answer as it comes."""
    print(text, end="", flush=True)


async def ask(models: Sequence[str], question: str, *, simulate: bool) -> int:
    """Run the race and print it; return the exit code."""
    code = FAILED
    server: AbstractAsyncContextManager[str | None] = simulator(simulated) if simulate else nullcontext()
    async with server as base_url, ChatClient(base_url, "simulated" if simulate else None) as client:
        try:
            with trio.fail_after(SECONDS):  # one deadline outside; nothing inside needs to know of it
                answer = await race(client, models, question, show)
            print(f"\n[{answer.model} was first]")
            code = 0
        except* (ChatError, trio.TooSlowError) as failures:
            for error in failures.exceptions:
                print(f"no answer: {type(error).__name__}: {error}", file=sys.stderr)
    return code


async def until_signal(models: Sequence[str], question: str, *, simulate: bool) -> int:
    """Run `ask`, or as much of it as fits before SIGINT or SIGTERM; return the exit code.

    trio raises KeyboardInterrupt wherever the program happens to be, in the middle of any cleanup too. As a signal
    that cancels a nursery, Ctrl-C is like any other cancellation: it arrives where code waits, and nowhere else.
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
    parser = argparse.ArgumentParser(prog="python -m examples.trio_app", description="Let models race for an answer.")
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--simulate", action="store_true", help="ask simulated models, not those of OPENAI_BASE_URL")
    arguments = parser.parse_args()
    models = tuple(dict.fromkeys(arguments.models))
    sys.exit(trio.run(partial(until_signal, models, arguments.question, simulate=arguments.simulate)))
