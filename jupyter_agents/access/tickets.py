"""One-time tickets: a page of another origin trades its credential for one, and opens a socket.

So that what goes into a WebSocket's address, which proxies write down, is worth nothing a moment
later. In memory only: a server that starts anew has given none.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FORM", "Tickets"]

T = TypeVar("T")

FORM = re.compile(r"jat\.[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class _Held(Generic[T]):
    agent: str
    name: str
    expires: float
    grant: T


class Tickets(Generic[T]):
    """Tickets that were given and not used yet.

    Parameters
    ----------
    life_s : float
        How long one is good.
    most : int
        How many may be out at once.
    dice : callable
        Number of bytes → random text of letters, digits, ``-`` and ``_``.
    """

    def __init__(
        self, life_s: float, most: int, dice: Callable[[int], str] = secrets.token_urlsafe
    ) -> None:
        self.life_s = life_s
        self._most = most
        self._dice = dice
        self._held: OrderedDict[bytes, _Held[T]] = OrderedDict()

    def give(self, agent: str, name: str, grant: T, now: float) -> str | None:
        """Return a ticket for one instance; None when too many are out already."""
        self._forget_old(now)
        if len(self._held) >= self._most:
            return None
        text = f"jat.{self._dice(32)}"
        self._held[_digest(text)] = _Held(agent, name, now + self.life_s, grant)
        return text

    def take(self, text: str, agent: str, name: str, now: float) -> T | None:
        """Return what was granted with a ticket, which is worth nothing from now on.

        None when it is not ours, was used, is too old, or is for another instance. It is looked
        up by its digest, so how long that takes tells nothing of any other ticket.
        """
        held = self._held.pop(_digest(text), None)
        if held is None or now >= held.expires or (held.agent, held.name) != (agent, name):
            return None
        return held.grant

    def _forget_old(self, now: float) -> None:
        while self._held and now >= next(iter(self._held.values())).expires:
            self._held.popitem(last=False)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
