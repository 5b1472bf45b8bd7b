"""An authorizer that allows what a test listed, and an identity provider like JupyterHub's."""

from __future__ import annotations

from typing import Any

from jupyter_server.auth import Authorizer, IdentityProvider, User


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


class HubLike(IdentityProvider):
    """A provider that knows personal tokens beside the server's own, as JupyterHub's does."""

    PERSONAL = "ann's-personal-token"

    def get_user(self, handler: Any) -> User | None:
        """Ann, when a request shows her token anywhere."""
        if self.PERSONAL not in (self.get_token(handler), handler.get_argument("token", "")):
            return None
        handler._token_authenticated = True
        return User("ann")
