"""A race between models: the first to write a word gives the answer, and the others are cancelled. Only plain trio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from chatscope import ChatClient, ChatError


@dataclass(frozen=True, slots=True)
class Winner:
    """The model that won the race, and its text."""

    model: str
    text: str


async def race(client: ChatClient, models: Sequence[str], question: str, show: Callable[[str], object]) -> Winner:
    """Ask all models at once, and return the text of the model that writes the first word.

    When this returns or raises, all its requests are closed. If cancelled, they are closed too.

    Args:
        client: sends the requests; its `max_concurrency` must let all models start at once.
        models: the names of the models, each once.
        question: the question.
        show: called with each part of the winner's text as it arrives.

    Raises:
        ChatError: the winner failed after its first word; `partial_text` has its text.
        ExceptionGroup: no model wrote anything; the group has the error of each.
    """
    scopes = {model: trio.CancelScope() for model in models}
    winners: list[str] = []
    completed: list[Winner] = []
    failures: dict[str, ChatError] = {}

    async def run(model: str) -> None:
        # The scope surrounds the stream, so a cancelled model closes its connection before the scope ends. The nursery
        # surrounds the scope, so the race ends after that.
        with scopes[model]:
            try:
                messages = [{"role": "user", "content": question}]
                async with client.stream(model=model, messages=messages) as stream:  # entered at the first word
                    if winners:
                        return  # another model won in the same tick, before its cancellation arrived here
                    winners.append(model)
                    for other, scope in scopes.items():
                        if other != model:
                            scope.cancel()
                    async for chunk in stream:
                        show(chunk.text)
                completed.append(Winner(model, stream.completion.text))
            except ChatError as error:
                failures[model] = error  # not raised: the nursery would cancel the models that may still win

    async with trio.open_nursery() as nursery:
        for model in models:
            nursery.start_soon(run, model)
    if not winners:
        raise ExceptionGroup("no model answered", [*failures.values()])
    if failure := failures.get(winners[0]):
        raise failure
    return completed[0]
