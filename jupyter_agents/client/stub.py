"""Calls that read like method calls: ``await client.stub.add(1, 2)``.

Promises that looking at the stub sends nothing: notebooks, debuggers and ``await`` ask objects
for many names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Stub"]

# Asked by libraries of any object they meet; as an agent's method they are reachable by `call`.
_ASKED_BY_LIBRARIES = frozenset({"toJSON", "then", "catch", "trait_names", "getdoc"})


class _Caller(Protocol):
    def call(self, method: str, args: Any = ()) -> Any: ...


class Stub:
    """An agent's methods. Calling one sends; naming one does not.

    Names that start with an underscore do not exist here, as no agent offers them.
    """

    __slots__ = ("_caller",)

    def __init__(self, caller: _Caller) -> None:
        self._caller = caller

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_") or method in _ASKED_BY_LIBRARIES:
            raise AttributeError(f"a stub has no {method!r}; call({method!r}) would send it")
        caller = self._caller

        def call(*args: object) -> Any:
            return caller.call(method, args)

        call.__name__ = call.__qualname__ = method
        return call

    def __dir__(self) -> list[str]:
        return []

    def __repr__(self) -> str:
        return f"<stub of {self._caller!r}>"
