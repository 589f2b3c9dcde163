"""ChatMap: a stage of Ray Data that sends a request for each row.

Here: from a batch of columns to tasks, and from their results to columns. Not here: how a row becomes a request
(`chatscope.batch.requests`), and how the adapter stays open (`open_adapter`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from importlib import import_module
from math import nan
from typing import Any, Final

from chatscope import ChatError, LimitSource, Result, Task
from chatscope.batch import BatchOptions
from chatscope.batch.errors import LineError
from chatscope.batch.readers import InputRow
from chatscope.batch.requests import RowParser
from chatscope.ray.open_adapter import OpenAdapter

COLUMNS: Final[dict[str, Any]] = {
    "output": "object",
    "finish_reason": "object",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
    "cost": "float64",
    "error": "object",
    "status": "int64",
    "attempts": "int64",
    "request_id": "object",
}
"""The columns that are added, with numpy's types: the same for every batch, so that all blocks have one schema."""

MODEL: Final = "gpt-4o-mini"


class ChatMap:
    """A callable class for `Dataset.map_batches`: one adapter in each actor, which sends a batch's rows concurrently.

    ::

        limit = SharedLimit(requests_per_minute=600).start()
        data.map_batches(
            ChatMap,
            fn_constructor_kwargs={"prompt": "Translate: {text}", "limit": limit, "adapter": {"base_url": url}},
            batch_size=256,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=4),
            num_cpus=0.1,
        )

    The input's columns pass through; one with the name of an added column gets the prefix `input_`. Added are `output`,
    `finish_reason`, `prompt_tokens`, `completion_tokens`, `cost` (US dollars; NaN if not known), `error` (empty without
    one), `status` (HTTP; 0 without a response), `attempts` and `request_id`. A row never raises: its error is a column.

    Args:
        prompt: a template over the columns, such as `"Translate: {text}"`. Without one, the rows must have a column
            `messages` or `body`.
        model, system, parameters: as in `BatchOptions`.
        stream: stream the responses on the wire. Otherwise a row costs less CPU, but a failure keeps no partial text.
        limit: the limit that all workers share.
        adapter: further arguments of each actor's `AsyncChatGPTAdapter`, such as `base_url`. Its `max_concurrency`
            bounds the requests of one actor. Ray sends these arguments to the actors, including a key. By default the
            key is `OPENAI_API_KEY` in the actors' environment.

    Raises:
        ValueError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        *,
        prompt: str | None = None,
        model: str = MODEL,
        system: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        stream: bool = False,
        limit: LimitSource | None = None,
        adapter: Mapping[str, Any] | None = None,
    ) -> None:
        options = BatchOptions(prompt=prompt, model=model, system=system, parameters=parameters or {})
        self._parser = RowParser(options, model)
        self._stream = stream
        arguments = {"keep_finished": 1, **(adapter or {})}
        self._adapter = OpenAdapter(arguments, limit, f"map-{secrets.token_hex(8)}")

    async def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Send a batch's rows and return its columns, in the same order. If cancelled, so are its requests.

        Raises:
            TypeError: the batch is not a mapping of columns.
            ValueError: the adapter cannot be opened, as when there is no key.
        """
        if not isinstance(batch, Mapping):
            raise TypeError(f"ChatMap needs batch_format='numpy', the default, not a {type(batch).__name__}")
        adapter = await self._adapter.get()
        names = list(batch)
        rows = [dict(zip(names, values, strict=True)) for values in zip(*map(_plain, batch.values()), strict=True)]
        outcomes: list[dict[str, Any]] = [{}] * len(rows)
        tasks: list[Task] = []
        places: list[int] = []
        for number, row in enumerate(rows):
            try:
                tasks.append(self._parser.parse(InputRow(number + 1, row)).request().task(stream=self._stream))
                places.append(number)
            except LineError as error:
                outcomes[number] = outcome(error=str(error))
        for place, result in zip(places, await adapter.gather(tasks), strict=True):
            outcomes[place] = outcome_of(result)
        return {f"input_{name}" if name in COLUMNS else name: batch[name] for name in names} | _columns(outcomes)

    async def aclose(self) -> None:
        """Close the adapter. Only for use without Ray Data, which drops the object instead."""
        await self._adapter.aclose()

    def __del__(self) -> None:
        # Ray Data drops the object when its actor ends, without any other notice.
        opened: OpenAdapter | None = getattr(self, "_adapter", None)
        if opened is not None:
            opened.close()


def outcome_of(result: Result) -> dict[str, Any]:
    """Return the values of the columns for a result."""
    error = result.exception
    status = error.status if isinstance(error, ChatError) else None
    usage = result.usage
    return outcome(
        output=result.output,
        finish_reason=result.finish_reason or "",
        prompt_tokens=0 if usage is None else usage.prompt_tokens,
        completion_tokens=0 if usage is None else usage.completion_tokens,
        cost=nan if result.cost is None else result.cost,
        error="" if result.success else result.error or type(error).__name__,
        status=200 if result.success else status or 0,
        attempts=result.attempts,
        request_id=result.metadata.get("request_id") or "",
    )


def outcome(**known: Any) -> dict[str, Any]:
    """Return the values of all added columns for one row, given some of them. A row that was not sent costs nothing."""
    return {name: "" if kind == "object" else 0 for name, kind in COLUMNS.items()} | known


def _columns(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    numpy = import_module("numpy")
    return {name: numpy.array([one[name] for one in outcomes], dtype=kind) for name, kind in COLUMNS.items()}


def _plain(value: Any) -> Any:
    """Return numpy's values as Python's own, at any depth."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value
