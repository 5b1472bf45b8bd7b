"""Who comes in without signing in to Jupyter: by a link, by a ticket, or because all may.

A guest enters one instance and nothing else of the server. What an agent learns of it is an
identity that says so, and never what it came in by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jupyter_agents.access.shares import Shared

__all__ = ["Guest", "by_link", "of_public", "of_user"]

_SHOWN_CHARS = 6
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Guest:
    """One visitor for one instance.

    Parameters
    ----------
    kind : str
        ``"share"``: by a link. ``"public"``: the class lets everyone in. ``"user"``: someone who
        signed in, by a ticket.
    user : Mapping or None
        What the agent sees as `connection.user`.
    readonly : bool
        Whether the state may only be looked at.
    share : str
        The id of the link; empty for the other kinds.
    max_connections : int or None
        WebSockets at once over this link.
    expires : int or None
        When the link does, in seconds since the epoch.
    from_anywhere : bool
        Whether a page of another origin may bring it: by a ticket only.
    by_cookie : bool
        Whether the browser showed the link by itself, so that the page's origin counts.
    secret : str
        What was presented as a link, for the cookie that a reload of the page needs.
    """

    kind: Literal["share", "public", "user"]
    user: Mapping[str, Any] | None
    readonly: bool = False
    share: str = ""
    max_connections: int | None = None
    expires: int | None = None
    from_anywhere: bool = False
    by_cookie: bool = False
    secret: str = ""

    def __repr__(self) -> str:
        return f"<Guest {self.kind} {self.share}>"

    @property
    def username(self) -> str:
        """For the server's log."""
        return str((self.user or {}).get("username", "guest"))

    def may_ask(self, method: str) -> bool:
        """Whether an HTTP method is open to this guest: a read-only one asks and sends nothing."""
        return not self.readonly or method in _READING


def by_link(shared: Shared, secret: str) -> Guest:
    """Return who comes in by a link."""
    link = shared.capability
    name = shared.label or "Guest"
    identity = {
        "username": f"guest-{link.id[:_SHOWN_CHARS]}",
        "name": name,
        "display_name": name,
        "kind": "share",
        "share": link.id,
        "readonly": link.readonly,
    }
    return Guest(
        kind="share",
        user=identity,
        readonly=link.readonly,
        share=link.id,
        max_connections=link.max_connections,
        expires=link.expires,
        secret=secret,
    )


def of_public() -> Guest:
    """Return anybody, at a class that is public."""
    identity = {"username": "guest", "name": "Guest", "display_name": "Guest", "kind": "public"}
    return Guest("public", {**identity, "readonly": False}, from_anywhere=True)


def of_user(user: Mapping[str, Any] | None) -> Guest:
    """Return someone who signed in and takes a ticket."""
    return Guest("user", user)
