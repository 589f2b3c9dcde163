"""AttemptObserver: what is called while an attempt is read, and one that does nothing. Not here: reading."""

from __future__ import annotations

from typing import Final, Protocol


class AttemptObserver(Protocol):
    """Called while an attempt is read. The event loop may call it outside of any task, so it must not wait."""

    def on_first_output(self) -> None:
        """The model has written something. Called once per attempt, before `on_text`."""
        ...

    def on_text(self, parts: list[str]) -> None:
        """The first choice's text has grown. `parts` holds all of it; the same list grows further."""
        ...


class _NoObserver:
    def on_first_output(self) -> None: ...

    def on_text(self, parts: list[str]) -> None: ...


NO_OBSERVER: Final[AttemptObserver] = _NoObserver()
