"""Who may enter, for every handler that leads to an agent: by token, link, ticket, or not at all.

Plain Tornado; `handlers.py` puts Jupyter's sign-in in the token's place. The decision about guests
is the room `access/`'s. Here, too, is where a credential is traded for a ticket.
"""

from __future__ import annotations

from functools import cached_property
from http.client import responses
from typing import TYPE_CHECKING, Any

from tornado.web import HTTPError, RequestHandler

from jupyter_agents.access.credentials import COOKIE, hide_passes, presented_tokens
from jupyter_agents.access.gate import NotAdmitted
from jupyter_agents.access.guests import of_user
from jupyter_agents.errors import AddressError, AgentNotFound
from jupyter_agents.protocol.names import Address, split_path

if TYPE_CHECKING:
    from jupyter_agents.access.credentials import Secrets
    from jupyter_agents.access.guests import Guest
    from jupyter_agents.server.door import Door

__all__ = ["Entrance", "Refused", "TicketHandler"]


class Refused(HTTPError):
    """A request that is answered with `facts` as JSON instead of being let in."""

    def __init__(self, status: int, error: str, **facts: Any) -> None:
        super().__init__(status)
        self.facts = {"error": error, **facts}


class Entrance(RequestHandler):
    """Who may enter. A subclass has a sign-in of its own (`sign_in`, `identity`, `secrets`)."""

    door: Door
    guest: Guest | None = None
    """Who did not sign in and is let in nevertheless."""
    bound_for: tuple[tuple[str, str] | None, str]
    """The `destination` as it was when the request came."""

    async def admit(self) -> None:
        """Return when the client may enter; raise or finish the response otherwise."""
        self.request.uri = hide_passes(self.request.uri or "")  # whoever logs it
        if self.is_preflight():
            return
        address, access = self.bound_for = self.destination()
        try:
            if address is not None:
                self.guest = self.door.gate.invited(
                    self.request, access, *address, socket=self.opens_socket()
                )
        except NotAdmitted as refusal:
            raise Refused(refusal.status, refusal.text) from None
        if self.guest is None:
            await self.sign_in()
        elif not self.is_open_to(self.guest):
            raise Refused(403, "Forbidden: this link is for looking only")

    async def sign_in(self) -> None:
        """Let in who shows the token, and the guests who need to show nothing."""
        if not self.door.token or self.shows_token():
            return
        self.guest = self.unbidden()
        if self.guest is None:
            raise Refused(
                403, "Forbidden: show the token, as ?token= or in the Authorization header"
            )

    def unbidden(self) -> Guest | None:
        """As whom someone enters who shows nothing; None when nobody may."""
        address, access = self.bound_for
        if address is None:
            return None
        guest = self.door.gate.uninvited(self.request, access, *address)
        return guest if guest and self.is_open_to(guest) else None

    def is_open_to(self, guest: Guest) -> bool:
        """Whether a guest may ask this: who may only look sends nothing."""
        return guest.may_ask(self.request.method or "")

    def destination(self) -> tuple[tuple[str, str] | None, str]:
        """Whom the URL addresses, agent and name as we spell them, and what that class allows."""
        try:
            address = self.address()
        except AddressError:
            return None, "jupyter"
        try:
            served = self.door.relay.find(address.agent)
        except AgentNotFound:
            return (address.agent, address.name), "link"  # a link may be good: 404 comes later
        return (served.agent, address.name), str(served.options.get("access", "jupyter"))

    def address(self) -> Address:
        """The address in the URL; AddressError when it has none."""
        return self.place[0]

    @cached_property
    def place(self) -> tuple[Address, str]:
        """The address in the URL and the tail behind it; AddressError when it has none."""
        return split_path(self.door.behind_prefix(self.request.path))

    def identity(self) -> dict[str, Any] | None:
        """The visitor, JSON-safe; None where nobody signs in."""
        if self.guest is None or self.guest.user is None:
            return None
        return dict(self.guest.user)

    def secrets(self) -> Secrets:
        """What the sign-in consumed."""
        return self.door.secrets(self.door.token)

    def check_origin(self, origin: str) -> bool:
        """Whether a page of another origin may come in: with the token, or by a ticket."""
        if self.guest is not None and self.guest.from_anywhere:
            return True
        return self.allows_origin(origin)

    def allows_origin(self, origin: str) -> bool:
        """The same for who is no guest."""
        if self.guest is None and self.door.token and self.shows_token():
            return True
        if origin in self.settings.get("trusted_origins", ()):
            return True
        host = self.request.headers.get("Host", "")
        return origin.partition("://")[2].lower() == host.lower()

    def shows_token(self) -> bool:
        """Whether the request has the right token."""
        known = self.door.secrets(self.door.token)
        return any(known.has(token) for token in presented_tokens(self.request))

    def check_origin_header(self) -> None:
        """Refuse a foreign page before anything is asked of an agent.

        Tornado's own check of WebSockets comes too late: the agent's gate is asked before it.
        """
        if self.is_foreign():
            raise Refused(403, "Forbidden: cross-origin requests are not allowed")

    def is_foreign(self) -> bool:
        """Whether a page of another origin asks that may not come in from there."""
        origin = self.request.headers.get("Origin")
        site = self.request.headers.get("Sec-Fetch-Site")
        if origin is None or site in ("same-origin", "none"):
            return False
        return not self.check_origin(origin)

    def keep_guest(self, path: str) -> None:
        """Have the browser remember a link for this path, so that the page can be loaded again."""
        guest = self.guest
        if guest is None or not guest.secret:
            return
        self.set_header("Referrer-Policy", "no-referrer")
        is_secure = self.request.protocol == "https"
        path = path.replace(";", "%3B")  # what follows it would be read as the cookie's attributes
        self.set_cookie(
            COOKIE,
            guest.secret,
            path=path,
            expires=guest.expires,
            httponly=True,
            samesite="Strict",
            secure=is_secure,
        )

    # -- kinds of request ----------------------------------------------------------------------

    def is_upgrade(self) -> bool:
        """Whether the client wants a WebSocket."""
        return self.request.headers.get("Upgrade", "").lower() == "websocket"

    def opens_socket(self) -> bool:
        """Whether a WebSocket is what comes of this request, if it is let in."""
        return self.request.method == "GET" and self.is_upgrade()

    def is_preflight(self) -> bool:
        """Whether a browser asks, without credentials, if another origin may come."""
        headers = self.request.headers
        return self.request.method == "OPTIONS" and "Access-Control-Request-Method" in headers

    def wants_page(self) -> bool:
        """Whether a person looks at this URL in a browser."""
        accepts = self.request.headers.get("Accept", "")
        return self.request.method == "GET" and "text/html" in accepts and not self.is_upgrade()

    # -- refusals ------------------------------------------------------------------------------

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Every refusal is JSON, and says no more than it has to."""
        error = kwargs.get("exc_info", (None, None))[1]
        facts = getattr(error, "facts", None)
        # Whether the last bytes arrive is the client's affair; nothing waits for them.
        _ = self.finish(facts or {"error": responses.get(status_code, "Unknown")})


class TicketHandler(Entrance):
    """``POST api/agents/{agent}/{name}/ticket``: trade a credential for a one-time ticket.

    For pages of other origins: their socket then has ``?ticket=`` in its address, which is good
    for one connection, to this instance, within 30 seconds.
    """

    def initialize(self, door: Door) -> None:
        """Tornado's constructor."""
        self.door = door

    def address(self) -> Address:
        """Tornado has decoded both parts."""
        address = Address(*self.path_args)
        return split_path(address.path)[0]

    def is_open_to(self, guest: Guest) -> bool:
        """To take a ticket is not to send anything: it has the same rights."""
        return True

    def opens_socket(self) -> bool:
        """Never: a ticket is not traded for another."""
        return False

    async def prepare(self) -> None:
        """Let in or refuse."""
        self.set_header("Access-Control-Allow-Origin", "*")  # cookies do not come along with that
        await self.admit()

    async def post(self, agent: str, name: str) -> None:
        """``{"ticket": str, "expires_in": seconds}``."""
        if self.guest is None or self.guest.by_cookie:
            self.check_origin_header()
        try:
            address = self.address()
            agent = self.door.relay.find(address.agent).agent
        except (AddressError, AgentNotFound):
            raise Refused(404, "No such agent") from None
        guest = self.guest or of_user(self.identity())
        try:
            ticket = self.door.gate.ticket(guest, agent, address.name)
        except NotAdmitted as refusal:
            raise Refused(refusal.status, refusal.text) from None
        self.set_header("Cache-Control", "no-store")
        _ = self.finish(ticket)

    async def options(self, agent: str, name: str) -> None:
        """A preflight comes without credentials; any other OPTIONS was signed in."""
        self.set_header("Access-Control-Allow-Headers", "authorization, content-type")
        self.set_header("Access-Control-Allow-Methods", "POST, OPTIONS")
        self.set_header("Access-Control-Max-Age", "600")
        self.set_status(204)
        _ = self.finish()
