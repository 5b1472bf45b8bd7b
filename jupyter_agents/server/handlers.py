"""Jupyter's sign-in before the door: who you are, what you may, from which origin.

All of it before the upgrade. A WebSocket is refused with 403 and never redirected; a person's
browser is sent to the login page. Everything else is `sockets.py`.
"""

from __future__ import annotations

import logging
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_server.auth import IdentityProvider, User
from jupyter_server.auth.decorator import allow_unauthenticated, ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.log import log_request
from jupyter_server.prometheus.log_functions import prometheus_log_method
from jupyter_server.utils import ensure_async
from tornado.web import RequestHandler, authenticated

from jupyter_agents.access.credentials import Secrets, presented_tokens
from jupyter_agents.server import entrance, sockets
from jupyter_agents.server.entrance import Entrance, Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["AgentHandler", "StaticHandler", "TicketHandler"]

# jupyter_server does not annotate these; a test looks at every method for the decorators' mark
_STOCK_MODEL = IdentityProvider.identity_model
signed_in: Callable[[Any], Any] = ws_authenticated
open_to_all: Callable[[Any], Any] = allow_unauthenticated
count: Callable[[RequestHandler], None] = prometheus_log_method


class SignIn(Entrance, JupyterHandler):
    """Jupyter's identity provider, authorizer, origin rules and XSRF check.

    To talk to an agent is to ``execute`` on the resource ``agents``, whatever the HTTP method:
    its code runs. Guests have an invitation instead; they are asked for neither.
    """

    auth_resource = "agents"
    _is_called_so: bool | None = None

    async def admit(self) -> None:
        """Let in a guest, or whom Jupyter and its authorizer let in."""
        self.current_user = self._jupyter_current_user = None
        if not self.check_host():
            raise Refused(403, "Forbidden: this server is not called that")
        await super().admit()
        if self.guest is not None:
            # Jupyter's own decorators and its log want one; it has no rights beyond this request
            self.current_user = self._jupyter_current_user = User(self.guest.username)
        if self.guest is not None or self.is_preflight():
            self.set_cors_headers()

    def check_host(self) -> bool:
        """Whether the server is called so; Jupyter looks at it again for those who sign in."""
        if self._is_called_so is None:
            self._is_called_so = bool(super().check_host())
        return self._is_called_so

    async def sign_in(self) -> None:
        """Sign in by whatever the identity provider knows, then ask the authorizer."""
        guest = self.unbidden()
        if guest is not None and await self._is_no_user():
            self.guest = guest
            return
        # Sets current_user; checks the Host header, and XSRF for methods that change something.
        await JupyterHandler.prepare(self, _redirect_to_login=self.wants_page())
        if self._finished:
            return
        if self.current_user is None:
            self._turn_away()
            return
        allowed = self.authorizer.is_authorized(self, self.current_user, "execute", "agents")
        if not await ensure_async(allowed):
            raise Refused(403, "Forbidden: you may not use agents on this server")

    async def _is_no_user(self) -> bool:
        """Whether nobody signed in, or only a browser's cookies did, for another origin's page."""
        user = await ensure_async(self.identity_provider.get_user(self))
        self.current_user = self._jupyter_current_user = user
        return user is None or self.is_foreign()

    def _turn_away(self) -> None:
        if not self.wants_page():
            raise Refused(403, "Forbidden: sign in to Jupyter, or show its token")
        send_to_login: Any = authenticated(_nothing)
        send_to_login(self)

    def identity(self) -> dict[str, Any] | None:
        """Jupyter's identity model: ``username``, ``name``, ``display_name``, …; or a guest's."""
        user = self.current_user
        if self.guest is not None or user is None:
            return super().identity()
        model = self.identity_provider.identity_model
        if type(user) is User and getattr(model, "__func__", None) is _STOCK_MODEL:
            # The same: it would take each field for a tree, and copies that. They are texts.
            return {field.name: getattr(user, field.name) for field in fields(User)}
        return dict(model(user))

    def secrets(self) -> Secrets:
        """The server's token and login cookie, and what another identity provider let in."""
        provider = self.identity_provider
        known = self.door.secrets(provider.token or "", provider.get_cookie_name(self))
        if not self.token_authenticated:
            return known
        presented = presented_tokens(self.request)
        if any(known.has(token) for token in presented):
            return known
        # A provider of its own, such as JupyterHub's: which of them it took, only it knows.
        return Secrets(presented, (provider.get_cookie_name(self),))

    def check_origin(self, origin: str = "") -> bool:
        """Jupyter's rule, and a ticket: see Entrance."""
        return super().check_origin(origin)

    def allows_origin(self, origin: str) -> bool:
        """Jupyter's rule: its own origin, ``ServerApp.allow_origin``, or anyone with the token."""
        return JupyterHandler.check_origin(self)

    def skip_check_origin(self) -> bool:
        """Not for OPTIONS, as Jupyter's APIs do: a preflight is answered by the class's CORS."""
        return not self.identity_provider.should_check_origin(self)


class AgentHandler(SignIn, sockets.AgentHandler):  # type: ignore[misc]  # prepare
    """The door behind Jupyter's sign-in."""

    def set_default_headers(self) -> None:
        """Jupyter's headers, which make no sense on a 101."""
        if not self.is_upgrade():
            JupyterHandler.set_default_headers(self)

    def _log(self) -> None:
        """Keep the metric of a 101; Jupyter's line for it is for DEBUG, where somebody hears."""
        wanted: Any = self.settings.get("log_function")
        is_jupyters = isinstance(wanted, partial) and wanted.func is log_request
        if self.get_status() != 101 or not is_jupyters or _is_heard(self.log, logging.DEBUG):
            super()._log()
        elif wanted.keywords.get("record_prometheus_metrics", True):
            count(self)

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


class TicketHandler(SignIn, entrance.TicketHandler):  # type: ignore[misc]  # prepare
    """Where a credential of Jupyter's, or a link, is traded for a ticket."""

    def set_cors_headers(self) -> None:
        """Every origin may ask, with a credential that is not a cookie."""

    @signed_in
    async def post(self, agent: str, name: str) -> None:
        """``{"ticket": str, "expires_in": seconds}``."""
        await entrance.TicketHandler.post(self, agent, name)

    @open_to_all
    async def options(self, agent: str, name: str) -> None:
        """A preflight comes without credentials."""
        await entrance.TicketHandler.options(self, agent, name)


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


def _is_heard(logger: logging.Logger | None, level: int) -> bool:
    """Whether a record would be shown: Jupyter's logger takes all, its handler drops most."""
    while logger is not None:
        if any(level >= handler.level for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False
