"""The extension of Jupyter Server: settings, start and stop, and what the links know of kernels.

Ties the door, the links and the API to one server. Their work is their own.
"""

from __future__ import annotations

import gc
import json
import logging
import secrets
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from jupyter_server.extension.application import ExtensionApp
from jupyter_server.utils import ensure_async
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.web import HTTPError
from traitlets import Bool

from jupyter_agents.access.credentials import same_text
from jupyter_agents.link.handshake import fingerprint
from jupyter_agents.server.api import Observers, api_routes
from jupyter_agents.server.autostart import Autostart
from jupyter_agents.server.door import Door
from jupyter_agents.server.downlink import Downlink
from jupyter_agents.server.handlers import AgentHandler, StaticHandler, TicketHandler
from jupyter_agents.server.limits import Limits
from jupyter_agents.server.observe import Events, Metrics
from jupyter_agents.server.sockets import agent_routes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jupyter_server.serverapp import ServerApp

__all__ = ["AgentsApp", "JupyterKernels"]

_TICK_MS = 1000
_ACTIVITY_MS = 5000
_PROBE_MS = 5000
_LEVELS = MappingProxyType(
    {
        "serve": logging.INFO,
        "withdraw": logging.INFO,
        "park": logging.INFO,
        "resume": logging.INFO,
        "drop": logging.WARNING,
    }
)


class AgentsApp(Limits, ExtensionApp):
    """Agents of this server's kernels, at ``{base_url}agents/{agent}/{name}``.

    Configured as ``c.AgentsApp.max_message_bytes = 1_000_000`` or on the command line as
    ``--AgentsApp.max_message_bytes=1000000``; every trait of `Limits` is one.
    """

    name = "jupyter_agents"
    # With a path of our own, JupyterHub's single-user server would take it for the landing page.
    extension_url = "/"
    load_other_extensions = True

    door: Door
    downlink: Downlink

    spare_collector = Bool(
        True,
        help=(
            "Have Python's garbage collector leave out what is there when the server has started: "
            "to look at all of it now and then stops every client for up to a tenth of a second."
        ),
    ).tag(config=True)

    def _config_file_name_default(self) -> str:
        return "jupyter_agents_config"

    def initialize_handlers(self) -> None:
        """Build everything and bind the link, so that kernels started from now on find it.

        Here and not in ``_start_jupyter_server_extension``, which pytest-jupyter never calls.
        """
        assert self.serverapp is not None
        base_url = self.serverapp.base_url
        self.observers = Observers()
        folder = Path(self.serverapp.data_dir, "jupyter_agents")
        self.door = Door(self, base_url, folder=folder, on_event=self._on_event)
        kernels = JupyterKernels(self.serverapp.web_app.settings)
        runtime_dir, version = self.serverapp.runtime_dir, metadata.version("jupyter_agents")
        self.downlink = Downlink(self.door, self, kernels, runtime_dir, self._welcome, version)
        served = self.door.relay.served
        self.autostart = Autostart(lambda: list(served.values()), kernels, self.log)
        event_logger = self.serverapp.event_logger
        assert event_logger is not None
        self.events = Events(event_logger)
        self.metrics = Metrics(self.door, self.downlink)
        self.door.on_left = self.metrics.left
        handlers = (AgentHandler, StaticHandler, TicketHandler)
        self.handlers.extend(agent_routes(self.door, *handlers, base_url="/"))
        self.handlers.extend(api_routes(self.door, self.downlink, self.observers))
        # Jupyter's other handlers log their addresses, too
        settings = self.serverapp.web_app.settings
        scrubbed = settings.get("extra_log_scrub_param_keys") or ()
        settings["extra_log_scrub_param_keys"] = [*scrubbed, "share", "ticket"]
        self._server_id = secrets.token_hex(8)
        self._clocks = [
            PeriodicCallback(self._tick, _TICK_MS),
            PeriodicCallback(self.downlink.report_activity, _ACTIVITY_MS),
            PeriodicCallback(self.downlink.probe, _PROBE_MS),
        ]
        self.log.debug("Kernels find their agents' link at %s", self.downlink.bind())
        IOLoop.current().add_callback(self._start)

    async def stop_extension(self) -> None:
        """Send the clients away, then let the kernels go."""
        for clock in self._clocks:
            clock.stop()
        if self.spare_collector:
            gc.unfreeze()
        await self.autostart.stop()
        self.metrics.stop()
        self.observers.close()
        await self.door.stop()
        await self.downlink.stop()

    async def _start(self) -> None:
        if self.door.is_stopping:
            return
        if self.spare_collector:
            gc.collect()
            gc.freeze()
        self.metrics.start()
        await self.downlink.start()
        for clock in self._clocks:
            clock.start()

    async def _tick(self) -> None:
        self.door.tick()
        self.downlink.tally(self.event_interval_s if self.events.is_activity_heard else 0.0)
        self.autostart.tick()
        await self.downlink.forget_gone()

    def _welcome(self) -> dict[str, Any]:
        assert self.serverapp is not None
        base_url = self.serverapp.base_url
        return {
            "server_id": self._server_id,
            "base_url": base_url,
            "url": _public_url(self.serverapp),
            "static": f"{base_url}agents-static/",
            "prefix": self.door.prefix,
            "max_message_bytes": self.max_message_bytes,
            "max_frame_bytes": self.frame_bytes(),
            "sharing": True,
        }

    def _on_event(self, kind: str, facts: dict[str, Any]) -> None:
        if kind == "tally":
            self.events.emit(kind, facts)
            return  # the side bar's view is none the newer for it
        level = _LEVELS.get(kind, logging.DEBUG)
        # Jupyter's logger takes everything, and its handler drops most: too late for each client.
        if level >= self.log_level:  # type: ignore[operator]
            # As JSON: an id or a reason comes from a client and may hold line breaks.
            self.log.log(level, "agents %s %s", kind, json.dumps(facts))
        self.events.emit(kind, facts)
        self.metrics.count(kind, facts)
        self.observers.tell(kind, facts)


class JupyterKernels:
    """The kernels of one Jupyter Server, for its links.

    Parameters
    ----------
    settings : Mapping
        The web application's: ``kernel_manager``, ``session_manager``, ``last_activity_times``.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    @property
    def _manager(self) -> Any:
        return self._settings["kernel_manager"]

    def find_key(self, given: str) -> tuple[bytes, str] | None:
        """The key and id of the kernel that has this fingerprint.

        By key, not by file name: external kernels are called otherwise.
        """
        for kernel_id in self._manager.list_kernel_ids():
            key = self._key(kernel_id)
            if key and same_text(given, fingerprint(key)):
                return key, kernel_id
        return None

    def _key(self, kernel_id: str) -> bytes:
        kernel = self._manager.get_kernel(kernel_id)
        # A kernel of a gateway has no session here.
        return bytes(getattr(getattr(kernel, "session", None), "key", b""))

    async def about(self, kernel_id: str) -> dict[str, Any]:
        """``notebook``, the path of its session, and ``pid``; each when there is one."""
        found: dict[str, Any] = {}
        if (process := self.process(kernel_id)) is not None:
            found["pid"] = process
        sessions = self._settings["session_manager"]
        try:
            session = await ensure_async(sessions.get_session(kernel_id=kernel_id))
        except HTTPError:
            return found
        return {**found, "notebook": session["path"]} if session and session.get("path") else found

    def process(self, kernel_id: str) -> int | None:
        """The kernel's process id, where this server started it."""
        if kernel_id not in self._manager:
            return None
        provisioner = getattr(self._manager.get_kernel(kernel_id), "provisioner", None)
        process = getattr(provisioner, "pid", None)
        return process if isinstance(process, int) else None

    def client(self, kernel_id: str) -> Any:
        """A client of the kernel, to have it run a cell."""
        return self._manager.get_kernel(kernel_id).client()

    async def may_return(self, about: Mapping[str, Any]) -> bool:
        """Whether Jupyter has the kernel, which a restart keeps, or another for its notebook."""
        if about.get("kernel_id") in self._manager:
            return True
        notebook = about.get("notebook")
        sessions = self._settings["session_manager"]
        return bool(notebook and await ensure_async(sessions.session_exists(notebook)))

    def touch(self, kernel_id: str, *, traffic: bool) -> None:
        """Keep the kernel from being culled, as Jupyter's own messages would."""
        if kernel_id not in self._manager:
            return
        if not traffic and getattr(self._manager, "cull_connected", False):
            return
        now = datetime.now(timezone.utc)
        self._manager.get_kernel(kernel_id).last_activity = now
        if traffic:
            self._settings["last_activity_times"]["jupyter_agents"] = now


def _public_url(serverapp: ServerApp) -> str:
    """The server's address for people, down to its base_url and without the token."""
    parts = urlsplit(serverapp.public_url)
    own = urlsplit(serverapp.custom_display_url).path
    path = f"{own.rstrip('/')}/" if own else serverapp.base_url
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
