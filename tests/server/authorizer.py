"""An authorizer for tests: allows what a test listed, and remembers what it was asked."""

from __future__ import annotations

from typing import Any

from jupyter_server.auth import Authorizer


class Listed(Authorizer):
    """`allowed` is set by a test."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.allowed: tuple[str, ...] = ("read", "write", "execute")
        self.asked: list[tuple[str, str]] = []

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        """Whether the action is listed; other resources are free."""
        if resource != "agents":
            return True
        self.asked.append((action, resource))
        return action in self.allowed
