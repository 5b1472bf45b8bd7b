"""Jupyter's sign-in before the door: who you are, what you may, from which origin.

All of it before the upgrade. A WebSocket is refused with 403 and never redirected; a person's
browser is sent to the login page. Everything else is `sockets.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import allow_unauthenticated, ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import ensure_async
from tornado.web import RequestHandler, authenticated

from jupyter_agents.access.credentials import Secrets, presented_tokens
from jupyter_agents.server import sockets
from jupyter_agents.server.sockets import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["AgentHandler", "StaticHandler"]

# jupyter_server does not annotate its decorators; a test looks at every method for their mark
signed_in: Callable[[Any], Any] = ws_authenticated
open_to_all: Callable[[Any], Any] = allow_unauthenticated


class AgentHandler(sockets.AgentHandler, JupyterHandler):  # type: ignore[misc]  # prepare
    """The door behind Jupyter's identity provider, authorizer, origin rules and XSRF check.

    To talk to an agent is to ``execute`` on the resource ``agents``, whatever the HTTP method:
    its code runs.
    """

    auth_resource = "agents"

    async def admit(self) -> None:
        """Sign in by whatever the identity provider knows, then ask the authorizer."""
        # Sets current_user; checks the Host header, and XSRF for methods that change something.
        await JupyterHandler.prepare(self, _redirect_to_login=self.wants_page())
        if self._finished or self.is_preflight():
            return
        if self.current_user is None:
            self._turn_away()
            return
        allowed = self.authorizer.is_authorized(self, self.current_user, "execute", "agents")
        if not await ensure_async(allowed):
            raise Refused(403, "Forbidden: you may not use agents on this server")

    def _turn_away(self) -> None:
        if not self.wants_page():
            raise Refused(403, "Forbidden: sign in to Jupyter, or show its token")
        send_to_login: Any = authenticated(_nothing)
        send_to_login(self)

    def identity(self) -> dict[str, Any] | None:
        """Jupyter's identity model: ``username``, ``name``, ``display_name``, …."""
        user = self.current_user
        return None if user is None else dict(self.identity_provider.identity_model(user))

    def secrets(self) -> Secrets:
        """The server's token and login cookie, and what another identity provider let in."""
        provider = self.identity_provider
        known = Secrets((provider.token or "",), (provider.get_cookie_name(self),))
        presented = presented_tokens(self.request)
        if not self.token_authenticated or any(known.has(token) for token in presented):
            return known
        # A provider of its own, such as JupyterHub's: which of them it took, only it knows.
        return Secrets(presented, (provider.get_cookie_name(self),))

    def check_origin(self, origin: str = "") -> bool:
        """Jupyter's rule: its own origin, ``ServerApp.allow_origin``, or anyone with the token."""
        return JupyterHandler.check_origin(self)

    def skip_check_origin(self) -> bool:
        """Not for OPTIONS, as Jupyter's APIs do: a preflight is answered by the class's CORS."""
        return not self.identity_provider.should_check_origin(self)

    def set_default_headers(self) -> None:
        """Jupyter's headers, which make no sense on a 101."""
        if not self.is_upgrade():
            JupyterHandler.set_default_headers(self)

    def set_cors_headers(self) -> None:
        """What the administrator allowed; a token alone does not add what the class did not."""
        if not self.is_upgrade() and (self.allow_origin or self.allow_origin_pat):
            JupyterHandler.set_cors_headers(self)

    @signed_in
    async def get(self, *args: Any, **kwargs: Any) -> None:
        """A WebSocket, a page or the agent's own answer."""
        await sockets.AgentHandler.get(self, *args, **kwargs)

    @signed_in
    async def answer(self) -> None:
        """Put an HTTP request to its agent and write what comes back."""
        await sockets.AgentHandler.answer(self)

    head = answer
    post = answer
    put = answer
    patch = answer
    delete = answer

    @open_to_all
    async def options(self) -> None:
        """A preflight comes without credentials; any other OPTIONS was signed in by `admit`."""
        await sockets.AgentHandler.answer(self)


class StaticHandler(sockets.StaticHandler):
    """The public JavaScript modules."""

    @open_to_all
    def get(self, path: str, include_body: bool = True) -> Awaitable[None]:
        """A file."""
        return super().get(path, include_body)

    @open_to_all
    def head(self, path: str) -> Awaitable[None]:
        """Its headers."""
        return super().head(path)


def _nothing(handler: RequestHandler) -> None:
    return None
