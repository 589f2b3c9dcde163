"""The model calls of one task: one, or one for each turn of its conversation; their text and what they used, together.

How one call is made is `call.py`'s business, what a turn says is `turns.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio.abc

from chatscope._conversation.loop import Conversation
from chatscope._tasks.handle import ChatTask
from chatscope._tasks.model_call import ModelCall
from chatscope.protocol.messages import Message
from chatscope.protocol.response import Completion
from chatscope.protocol.usage import Usage, add_usage


class TaskCalls:
    """The model calls of a task.

    Args:
        new_call: makes one from messages and parameters, and from the `earlier` one.
        handle: gets their text.
        messages, parameters: what is asked first.
        conversation: what is asked then; `None` if there is but one turn.

    Raises:
        ValueError: an argument can never be right.
    """

    __slots__ = ("_calls", "_conversation", "_handle", "_messages", "_new_call")

    def __init__(
        self,
        new_call: Callable[..., ModelCall],
        handle: ChatTask,
        messages: Sequence[Message],
        parameters: Mapping[str, Any],
        conversation: Conversation | None,
    ) -> None:
        self._new_call = new_call
        self._handle = handle
        self._messages = messages
        self._conversation = conversation
        self._calls: list[ModelCall] = []
        self._begin(messages, parameters if conversation is None else conversation.parameters, handle.grew)

    @property
    def latest(self) -> ModelCall:
        """The last of them so far."""
        return self._calls[-1]

    @property
    def messages(self) -> Sequence[Message]:
        """The conversation that was sent last; when a turn has ended in calls of tools, with their results."""
        return self._messages if self._conversation is None else self._conversation.messages

    @property
    def parsed(self) -> Any:
        """The last reply as a value of the type that was asked for."""
        return None if self._conversation is None else self._conversation.parsed

    def replies(self) -> list[tuple[Completion | None, Usage | None]]:
        """Return what came of each call, and what it used; of a later one only if it came to anything."""
        replies = []
        for call in self._calls:
            completion = call.completion
            if call is self._calls[0] or (completion is not None and completion.choices):
                usage = completion.usage if completion is not None else None
                replies.append((completion, add_usage(usage, *call.overtaken_usage)))
        return replies

    async def run(self, group: anyio.abc.TaskGroup) -> None:
        """Make the calls; the attempts of hedged ones run in the group given. Cancelled with it, the connections close.

        Raises:
            Exception: what the last attempt of a call raised, or what the conversation ended with.
        """
        if self._conversation is None:
            await self.latest.run(group)
        else:
            await self._conversation.run(partial(self._take_turn, self._conversation, group))

    async def _take_turn(self, conversation: Conversation, group: anyio.abc.TaskGroup) -> Completion:
        if conversation.completions:
            before = self._handle.pieces
            self._handle.was_read = False  # nobody has read any of what comes now
            self._begin(conversation.messages, conversation.parameters, partial(self._grew_after, before))
        return await self.latest.run(group)

    def _begin(
        self, messages: Sequence[Message], parameters: Mapping[str, Any], on_text: Callable[[list[str]], None]
    ) -> None:
        call = self._new_call(messages, parameters, earlier=self._calls[-1] if self._calls else None)
        call.on_start = self._handle.began
        call.on_text = on_text
        call.was_read = partial(getattr, self._handle, "was_read")
        self._calls.append(call)

    def _grew_after(self, before: list[str], pieces: list[str]) -> None:
        """Let a turn's text follow that of the turns before."""
        text = self._handle.pieces
        known = len(text) - len(before)
        if text is before or known > len(pieces):  # its first text, or that of another attempt
            text, known = before.copy(), 0
        text += pieces[known:]
        self._handle.grew(text)
