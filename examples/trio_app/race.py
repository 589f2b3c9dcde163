"""A race between models: the first that speaks gives the answer, the others are cancelled. Plain trio throughout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from chatscope import ChatClient, ChatError


@dataclass(frozen=True, slots=True)
class Answer:
    """What won the race."""

    model: str
    text: str


async def race(client: ChatClient, models: Sequence[str], question: str, show: Callable[[str], object]) -> Answer:
    """Ask all models at once and return the answer of the one whose first word comes first.

    When this returns or raises, no request of it is open any more. Cancelled, all of them are.

    Args:
        client: asks them; its `max_concurrency`, if it has one, must let all start at once.
        models: their names, each once.
        question: what they are asked.
        show: called with each piece of the winner's text, while it comes.

    Raises:
        ChatError: the winner failed after its first word; `partial_text` holds what it had said.
        ExceptionGroup: no model said anything; the group holds what each of them failed with.
    """
    scopes = {model: trio.CancelScope() for model in models}
    winners: list[str] = []
    answers: list[Answer] = []
    failures: dict[str, ChatError] = {}

    async def run(model: str) -> None:
        # The scope is around the stream, so a model that is cancelled closes its connection on the way out of it; and
        # the nursery is around the scope, so the race is not over before that has happened.
        with scopes[model]:
            try:
                messages = [{"role": "user", "content": question}]
                async with client.stream(model=model, messages=messages) as stream:  # entered at its first word
                    if winners:
                        return  # another's came in the same turn of the loop: too soon for its cancellation to arrive
                    winners.append(model)
                    for other, scope in scopes.items():
                        if other != model:
                            scope.cancel()
                    async for chunk in stream:
                        show(chunk.text)
                answers.append(Answer(model, stream.completion.text))
            except ChatError as error:
                failures[model] = error  # not raised: the nursery would cancel the others, who may still win

    async with trio.open_nursery() as nursery:
        for model in models:
            nursery.start_soon(run, model)
    if not winners:
        raise ExceptionGroup("no model answered", [*failures.values()])
    if failure := failures.get(winners[0]):
        raise failure
    return answers[0]
