"""Links to one instance for people who do not sign in: what `ns.share(…)` returns, and how.

The key that signs links never leaves the server, so the kernel asks it over the link. Its other
half is `access/desk.py`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
from datetime import datetime, timedelta, timezone
from html import escape
from itertools import count
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jupyter_agents.errors import ShareError
from jupyter_agents.link.frames import Kind, unpack_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_agents.host.host import AgentHost

__all__ = ["Share", "Sharing", "seconds_of"]

ASK_S = 10.0
"""How long the server may take to answer."""

_TIMEOUTS = (asyncio.TimeoutError, concurrent.futures.TimeoutError)  # the same from 3.11 on

_SECONDS = (("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_PIECE = re.compile(r"(\d+(?:\.\d+)?)\s*([wdhms])[a-z]*\s*", re.IGNORECASE)
_LOOK = MappingProxyType({"border": 4, "dark": "#000", "light": "#fff"})
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def seconds_of(expires: str | float | timedelta | datetime, now: datetime) -> float:
    """Return for how long: ``"2h"``, ``"1h 30m"``, seconds, a timedelta, or until a datetime.

    Raises
    ------
    ValueError
        When it is no length of time.
    """
    if isinstance(expires, datetime):
        return (expires.astimezone(timezone.utc) - now).total_seconds()
    if isinstance(expires, timedelta):
        return expires.total_seconds()
    if isinstance(expires, str):
        return _read(expires.strip())
    if isinstance(expires, bool) or not isinstance(expires, (int, float)):
        raise ValueError(_not_a_time(expires))
    if not isfinite(expires):
        raise ValueError(_not_a_time(expires))
    return float(expires)


def _read(text: str) -> float:
    pieces = _PIECE.findall(text)
    if not pieces or _PIECE.sub("", text):
        raise ValueError(_not_a_time(text))
    units = dict(_SECONDS)
    return sum(float(number) * units[unit.lower()] for number, unit in pieces)


def _not_a_time(given: object) -> str:
    return f'expires is like "2h", "30m", "7d", seconds, a timedelta or a datetime, not {given!r}'


class Sharing:
    """A host's questions about links, by number.

    Thread
    ------
    The agents' own; `ask` any other.
    """

    def __init__(self, host: AgentHost) -> None:
        self._host = host
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}

    def ask(self, do: str, **facts: Any) -> dict[str, Any]:
        """Return the server's answer, for a cell or a thread of the author's.

        Raises
        ------
        ShareError
            When the server refuses, or cannot be asked.
        """
        if self._host.is_here():
            raise ShareError(
                "Hooks cannot wait for the server: await asyncio.to_thread(ns.share, …) there"
            )
        asking = self._host.submit(self.put, {"do": do, **facts})
        try:
            return dict(asking.result(2 * ASK_S))
        except _TIMEOUTS:
            asking.cancel()
            raise ShareError("The agents' thread is kept busy: try again when it is not") from None

    def answered(self, number: int, payload: bytes) -> None:
        """A SHARED frame came."""
        asked = self._asked.get(number)
        if asked is not None and not asked.done():
            asked.set_result(unpack_object(payload))

    async def put(self, question: dict[str, Any]) -> dict[str, Any]:
        """`ask` on the agents' thread; `question` is what the server is sent."""
        host = self._host
        if host.uplink is None:
            raise ShareError("The server is away: links are made while it is there")
        if not host.server.get("sharing"):
            raise ShareError("The server's jupyter_agents is older than links; update it there")
        number = next(self._numbers)
        asked = self._asked[number] = host.loop.create_future()
        host.send_object(Kind.SHARE, number, question)
        try:
            answer: dict[str, Any] = await asyncio.wait_for(asked, ASK_S)
        except _TIMEOUTS:
            raise ShareError("The server did not answer in time") from None
        finally:
            del self._asked[number]
        if "error" in answer:
            raise ShareError(str(answer["error"]))
        return answer


class Share:
    """A link to one instance, for people who do not sign in.

    In a notebook it shows itself as the link and a QR code. Whoever has the link is let in, so the
    text of this object does not show it; `url` has it, where the link was made just now.

    Parameters
    ----------
    facts : dict
        What the server told.
    page : str
        The address of the instance's page.
    ask : callable
        See `Sharing.ask`.
    """

    def __init__(
        self, facts: dict[str, Any], page: str, ask: Callable[..., dict[str, Any]]
    ) -> None:
        self.id = str(facts["id"])
        self.agent = str(facts["agent"])
        self.name = str(facts["name"])
        self.expires = datetime.fromtimestamp(int(facts["expires"]), timezone.utc)
        self.readonly = bool(facts["readonly"])
        self.max_connections: int | None = facts["max_connections"]
        self.label = str(facts["label"])
        self.connections = int(facts["connections"])
        """Open WebSockets when the server was asked."""
        secret = facts.get("secret")
        self.url: str | None = f"{page}?share={secret}" if secret else None
        """The link; None for one that was listed: the server keeps none of them."""
        self._ask = ask

    @property
    def ws_url(self) -> str | None:
        """The same for a WebSocket client."""
        return None if self.url is None else "ws" + self.url.removeprefix("http")

    def revoke(self) -> None:
        """Close the link for good, and send away who came in by it (4001)."""
        self._ask("revoke", agent=self.agent, id=self.id)

    def qr(self, scale: int = 4) -> str:
        """The link as a QR code: an SVG element, as text; ValueError where the link is unknown."""
        return str(self._code().svg_inline(scale=scale, **_LOOK))

    def qr_uri(self, scale: int = 4) -> str:
        """The same as a ``data:`` address, for an image."""
        return str(self._code().svg_data_uri(scale=scale, **_LOOK))

    def _code(self) -> Any:
        if self.url is None:
            raise ValueError("This link was listed: only the one that share(…) returned is known")
        import segno  # only who shows a code pays for it

        return segno.make(self.url, error="l", micro=False)

    @property
    def summary(self) -> str:
        """What it opens, for whom and until when, in words and without what opens it."""
        kind = "read-only " if self.readonly else ""
        most = f", {self.max_connections} connections" if self.max_connections else ""
        until = self.expires.astimezone().strftime("%Y-%m-%d %H:%M")
        label = f" for {self.label}" if self.label else ""
        return f"{kind}link{label} to {self.agent}/{self.name} until {until}{most}"

    def _repr_html_(self) -> str:
        if self.url is None:
            return f"<p>{escape(self.summary)}</p>"
        note = ""
        if urlsplit(self.url).hostname in _THIS_MACHINE:
            note = (
                "<p>This address works on this machine only. Others need the one under which they "
                "reach your Jupyter Server: set <code>ServerApp.custom_display_url</code>.</p>"
            )
        address = escape(self.url)
        return (
            f"<div><p>{escape(self.summary)}</p>"
            '<p style="overflow-wrap: anywhere">'
            f'<a href="{address}" target="_blank" rel="noopener noreferrer">{address}</a></p>'
            f'<div role="img" aria-label="QR code of the link">{self.qr()}</div>{note}</div>'
        )

    def __repr__(self) -> str:
        return f"<Share {self.id}: {self.summary}>"
