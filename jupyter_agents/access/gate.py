"""The decision: whether a request that nobody signed in for may enter one instance, and as whom.

Asks the keys, the register and the tickets, and watches who came in by a link, so that a link that
is revoked or expires takes its visitors along. Says no more to a stranger than "no".
"""

from __future__ import annotations

import logging
import re
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from jupyter_agents.access.capability import Capability, read, sign
from jupyter_agents.access.credentials import COOKIE, presented_tokens, query_values
from jupyter_agents.access.guests import Guest, by_link, of_public
from jupyter_agents.access.keys import KeyRing
from jupyter_agents.access.shares import Shared, Shares
from jupyter_agents.access.tickets import FORM as TICKET
from jupyter_agents.access.tickets import Tickets
from jupyter_agents.errors import ShareError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tornado.httputil import HTTPServerRequest

__all__ = ["REVOKED", "Gate", "GateLimits", "NotAdmitted"]

_log = logging.getLogger(__name__)

REVOKED = 4001
"""The code that closes who came by a link that holds no more: final, clients stay away."""

_SHARE = re.compile(r"jas\.[A-Za-z0-9_.-]+")
_LABEL_CHARS = 80
_KEY_AGE_S = 30 * 24 * 3600.0
"""After this a new key signs, and the old one lives as long as its last link."""
_MOST_CONNECTIONS = 1_000_000


class NotAdmitted(Exception):
    """A link or ticket was shown that opens nothing here: an HTTP `status`, and why in `text`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Closable(Protocol):
    """What the gate needs of a guest's socket."""

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake."""


@dataclass(frozen=True)
class GateLimits:
    """What the gate bounds and allows; the server's settings fill it."""

    allow_links: bool = True
    max_share_s: float = 30 * 24 * 3600.0
    max_shares: int = 1_000
    ticket_s: float = 30.0
    max_tickets: int = 10_000


@dataclass(frozen=True, slots=True)
class _Inside:
    guest: Guest
    agent: str


class Gate:
    """Links, tickets and the guests that they brought.

    Parameters
    ----------
    limits : GateLimits
        What is allowed at all.
    folder : Path or None
        Where keys and register are; None keeps both in memory.
    clock : callable
        Seconds since the epoch.
    """

    def __init__(
        self, limits: GateLimits, folder: Path | None, clock: Callable[[], float]
    ) -> None:
        self.limits = limits
        self.keys = KeyRing(folder and folder / "share-keys.json")
        self.shares = Shares(folder and folder / "shares.sqlite3", limits.max_shares)
        self._tickets: Tickets[Guest] = Tickets(limits.ticket_s, limits.max_tickets)
        self._clock = clock
        self._inside: dict[Closable, _Inside] = {}

    def now(self) -> float:
        """The time, in seconds since the epoch."""
        return self._clock()

    # -- who may enter -------------------------------------------------------------------------

    def invited(
        self, request: HTTPServerRequest, access: str, agent: str, name: str, *, socket: bool
    ) -> Guest | None:
        """Return whom a link or ticket in the request makes of its bearer; None without one.

        Parameters
        ----------
        request : HTTPServerRequest
            As it came.
        access : str
            What the class allows: ``"jupyter"``, ``"link"`` or ``"public"``.
        agent, name : str
            The instance, as the server spells it.
        socket : bool
            Whether a WebSocket is wanted; a ticket opens nothing else.

        Raises
        ------
        NotAdmitted
            When one is shown that opens nothing here. It does not fall back to another
            credential, so that a link means the same to everybody.
        """
        ticket = next((v for v in query_values(request, "ticket") if TICKET.fullmatch(v)), None)
        if ticket is not None:
            return self._by_ticket(ticket, access, agent, name, socket=socket)
        shown = (*query_values(request, "share"), *presented_tokens(request))
        link = next((value for value in shown if _SHARE.fullmatch(value)), None)
        return None if link is None else self._by_link(link, access, agent, name)

    def uninvited(
        self, request: HTTPServerRequest, access: str, agent: str, name: str
    ) -> Guest | None:
        """Return as whom someone enters who shows nothing: by an older visit, or because all may.

        Ask it only about who has not signed in.
        """
        kept = request.cookies.get(COOKIE)
        if kept is not None:
            try:
                return replace(self._by_link(kept.value, access, agent, name), by_cookie=True)
            except NotAdmitted:
                pass  # an old cookie is no reason to keep anybody from signing in
        return of_public() if access == "public" else None

    def _by_ticket(self, text: str, access: str, agent: str, name: str, *, socket: bool) -> Guest:
        guest = self._tickets.take(text, agent, name, self._clock())  # used up in any case
        if guest is None or not socket:
            raise NotAdmitted(403, "Forbidden: this ticket opens nothing here, or was used")
        if guest.kind == "share":
            self._check(guest.share, access)
        elif guest.kind == "public" and access != "public":
            raise NotAdmitted(403, "Forbidden: this agent is not public any more")
        return replace(guest, from_anywhere=True)

    def _by_link(self, text: str, access: str, agent: str, name: str) -> Guest:
        now = self._clock()
        link = read(text, lambda key_id: self.keys.find(key_id, now))
        if link is None or (link.agent, link.name) != (agent, name):
            raise NotAdmitted(403, "Forbidden: this link opens nothing here")
        return by_link(self._check(link.id, access), text)

    def _check(self, share_id: str, access: str) -> Shared:
        try:
            shared = self.shares.get(share_id)
        except ShareError as error:
            _log.warning("A link was refused: %s", error)
            raise NotAdmitted(503, "Links cannot be looked up now; try again soon") from None
        if shared is None:
            raise NotAdmitted(403, "Forbidden: this link opens nothing here")
        why = self._why_not(shared, access)
        if why:
            raise NotAdmitted(403, f"Forbidden: {why}")
        return shared

    def _why_not(self, shared: Shared | None, access: str) -> str:
        """Why a link that is authentic opens nothing; it is for its holder."""
        if shared is None or shared.revoked is not None:
            return "this link was revoked"
        return self._why_no_more(shared.capability.expires, access)

    def _why_no_more(self, expires: float, access: str) -> str:
        if self._clock() >= expires:
            return "this link has expired"
        if access == "jupyter" or not self.limits.allow_links:
            return "this agent takes no links any more"
        return ""

    # -- who is inside -------------------------------------------------------------------------

    def has_room(self, guest: Guest) -> bool:
        """Whether one more WebSocket may come by this guest's link."""
        most = guest.max_connections
        return most is None or self.count(guest.share) < most

    def entered(self, guest: Guest, socket: Closable, agent: str) -> bool:
        """Take note of a guest's socket; False when it must not stay."""
        if guest.kind == "user":
            return True  # who signed in is nobody's guest
        if not self.has_room(guest):
            return False
        self._inside[socket] = _Inside(guest, agent)
        return True

    def left(self, socket: Closable) -> None:
        """A socket is gone, a guest's or not."""
        self._inside.pop(socket, None)

    def count(self, share_id: str) -> int:
        """How many WebSockets are open by a link."""
        return sum(one.guest.share == share_id for one in self._inside.values())

    def tick(self, access_of: Callable[[str], str]) -> None:
        """Send away whom nothing lets in any more; call it every second.

        Parameters
        ----------
        access_of : callable
            Agent → what its class allows now.
        """
        inside = list(self._inside.items())
        known = self._known({one.guest.share for _, one in inside if one.guest.share})
        for socket, one in inside:
            why = self._why_out(one, known, access_of(one.agent))
            if why:
                socket.close(REVOKED, why[:1].upper() + why[1:])

    def _known(self, links: set[str]) -> dict[str, Shared] | None:
        """What the register has of these links; None when it cannot say."""
        try:
            return self.shares.among(links)
        except ShareError as error:
            _log.warning("Whether links were revoked is not known: %s", error)
            return None

    def _why_out(self, one: _Inside, known: dict[str, Shared] | None, access: str) -> str:
        guest = one.guest
        if guest.kind != "share":
            return "" if access == "public" else "this agent is not public any more"
        if known is None:  # nobody is sent away for good by a guess
            return self._why_no_more(guest.expires or 0, access)
        return self._why_not(known.get(guest.share), access)

    # -- links and tickets ---------------------------------------------------------------------

    def share(
        self,
        agent: str,
        name: str,
        expires_s: float,
        *,
        readonly: bool = False,
        max_connections: int | None = None,
        label: str = "",
    ) -> tuple[Shared, str]:
        """Make a link to one instance, good for `expires_s` seconds; and its secret text.

        Raises
        ------
        ShareError
            When the server does not allow it, or not like this.
        """
        self._check_wish(expires_s, max_connections, label)
        now = self._clock()
        expires = int(now + expires_s)
        link_id = secrets.token_hex(8)
        link = Capability(link_id, agent, name, expires, readonly, max_connections)
        shared = Shared(link, label, now)
        if now - self.keys.signing(now).created > _KEY_AGE_S:
            self.rotate()
        self.shares.add(shared)
        key = self.keys.signing(now)
        return shared, sign(link, key.id, key.secret)

    def _check_wish(self, expires_s: float, most: int | None, label: str) -> None:
        if not self.limits.allow_links:
            raise ShareError("This server's configuration allows no links (allow_links is off)")
        if not 1 <= expires_s <= self.limits.max_share_s:
            raise ShareError(
                f"A link can be good for 1 to {self.limits.max_share_s:g} seconds (the server's "
                f"limit, max_share_s), not for {expires_s:g}"
            )
        if most is not None and not 1 <= most <= _MOST_CONNECTIONS:
            raise ShareError(f"max_connections is 1 to {_MOST_CONNECTIONS} or None, not {most}")
        if len(label) > _LABEL_CHARS:
            raise ShareError(f"A label has at most {_LABEL_CHARS} characters")

    def revoke(self, share_id: str) -> bool:
        """Close a link for good and send away who came by it; False when there is none."""
        found = self.shares.revoke(share_id, self._clock())
        for socket, one in list(self._inside.items()):
            if one.guest.share == share_id:
                socket.close(REVOKED, "This link was revoked")
        return found

    def rotate(self) -> None:
        """Sign with a new key from now on; the old ones live as long as their last link."""
        self.keys.rotate(self._clock(), self.shares.last_expiry())

    def ticket(self, guest: Guest, agent: str, name: str) -> dict[str, Any]:
        """Return a ticket for one instance, as JSON-safe data.

        Raises
        ------
        NotAdmitted
            When too many are out.
        """
        text = self._tickets.give(agent, name, guest, self._clock())
        if text is None:
            raise NotAdmitted(503, "Too many tickets are out; try again soon")
        return {"ticket": text, "expires_in": self.limits.ticket_s}

    def close(self) -> None:
        """The server stops."""
        self.shares.close()
