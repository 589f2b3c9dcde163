"""Guard: calls the user's functions, and keeps their errors out of tasks and connections.

Every call to a user's telemetry, price function or callback goes through a guard. Not here: tools, whose errors are
reported to the model, and the hooks of a user's own HTTP client, whose errors fail the request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, ParamSpec, TypeVar

_T = TypeVar("_T")
_D = TypeVar("_D")
_P = ParamSpec("_P")

_log: Final = logging.getLogger("chatscope.callbacks")


class Guard:
    """Calls user functions, and logs the first error of each, with its traceback.

    Only `KeyboardInterrupt` and `SystemExit` pass through. A plain function cannot be cancelled, so a cancellation that
    it raises is an error like any other.
    """

    __slots__ = ("_logged",)

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def call(self, name: str, default: _D, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | _D:
        """Return what a function returns, or the default if it raises.

        Args:
            name: what the log calls the function. Only the first error of each name is logged.
            default: returned if the function raises.
            function: the user's function. It must not be async: nothing awaits what it returns.
            *args: its arguments.
            **kwargs: its keyword arguments.
        """
        try:
            result = function(*args, **kwargs)
            if isinstance(result, Coroutine):
                result.close()
                raise TypeError(f"{name} must be a plain function, not an async one")
        except BaseException as error:
            if _ends_program(error):
                raise
            if name not in self._logged:
                self._logged.add(name)
                _log.exception("%s raised an error; it is ignored here, and further ones are not logged", name)
            return default
        return result


class GuardedBlock(AbstractContextManager[None]):
    """A user's context manager that can neither raise into the block nor suppress the block's own exception.

    It is exited once: a further exit does nothing.

    Args:
        guard: logs the errors of the user's context manager.
        name: what the log calls it.
        make: returns it; `None` for a block without one.
    """

    __slots__ = ("_block", "_guard", "_make", "_name")

    def __init__(self, guard: Guard, name: str, make: Callable[[], AbstractContextManager[object]] | None) -> None:
        self._guard = guard
        self._name = name
        self._make = make
        self._block: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        if self._make is not None:
            self._block = self._guard.call(self._name, None, _entered, self._make)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block, self._block = self._block, None
        if block is not None:
            self._guard.call(self._name, None, block.__exit__, None, None, None)


def _entered(make: Callable[[], AbstractContextManager[object]]) -> AbstractContextManager[object]:
    block = make()
    block.__enter__()
    return block


def _ends_program(error: BaseException) -> bool:
    kinds = (KeyboardInterrupt, SystemExit)
    return isinstance(error, kinds) or (isinstance(error, BaseExceptionGroup) and error.subgroup(kinds) is not None)
