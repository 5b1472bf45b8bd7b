"""The instances of one served class, by name: what `serve` returns to a cell."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from jupyter_agents.host.handle import AgentHandle, handle_for
from jupyter_agents.sharing import Share, seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from jupyter_agents.host.agent import Agent
    from jupyter_agents.host.host import AgentHost, Hosted

__all__ = ["AgentNamespace", "Viewer"]

ASK_S = 15.0


class Viewer(Protocol):
    """How handles and namespaces show themselves; an edge gives it to the host of a notebook."""

    def mimebundle(self, shown: Any) -> Any:
        """What IPython displays for a namespace or handle: its panel."""

    def controls(self, handle: Any, fields: tuple[str, ...]) -> Any:
        """Widgets bound to fields of a typed state, one below the other."""

    def control(self, handle: Any, field: str) -> Any:
        """One of them."""


class AgentNamespace:
    """The instances of one served class, by name: ``ns["lobby"]`` is a handle on one of them."""

    def __init__(self, host: AgentHost, hosted: Hosted) -> None:
        self._host = host
        self._hosted = hosted

    @property
    def agent_class(self) -> type[Agent]:
        """The class, as it was last served."""
        return self._hosted.cls

    @property
    def agent(self) -> str:
        """The class's part of the address."""
        return self._hosted.agent

    @property
    def host(self) -> AgentHost:
        """The host that runs it, for panels."""
        return self._host

    @property
    def is_served(self) -> bool:
        """Whether it still is."""
        return self._host.classes.get(self.agent) is self._hosted

    @property
    def instances(self) -> list[str]:
        """Names of the instances in memory."""
        return sorted(self._hosted.instances)

    def __getitem__(self, name: str) -> AgentHandle:
        return handle_for(self._host, self._hosted, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.instances)

    def __contains__(self, name: object) -> bool:
        return name in self._hosted.instances

    def __len__(self) -> int:
        return len(self._hosted.instances)

    def url(self, name: str = "default") -> str:
        """The WebSocket address of an instance, without a credential."""
        return "ws" + self.page(name).removeprefix("http")

    def page(self, name: str = "default") -> str:
        """The address of an instance's console page, for a browser that is signed in."""
        base = str(self._host.server.get("url") or "http://localhost:8888/")
        return f"{base}agents/{self.agent}/{quote(name, safe='')}"

    def share(
        self,
        name: str = "default",
        expires: str | float | timedelta | datetime = "2h",
        *,
        readonly: bool = False,
        max_connections: int | None = None,
        label: str = "",
    ) -> Share:
        """A link that lets people in to one instance, and to nothing else, without signing in.

        Parameters
        ----------
        name : str
            The instance.
        expires : str, float, timedelta or datetime
            For how long: ``"2h"``, ``"30m"``, ``"7d"``, seconds; or until when.
        readonly : bool
            Whether they may only look: they get the state and messages, and may call methods that
            do not change the state.
        max_connections : int, optional
            WebSockets at once over this link.
        label : str
            What to call those who come by it; they see it, and the agent does.

        Returns
        -------
        Share
            Shows itself as the link and a QR code; ``revoke()`` closes it for good.

        Raises
        ------
        ShareError
            When the class does not say ``access = "link"``, or the server does not allow it.

        Thread
        ------
        Any but the agents' own.
        """
        seconds = seconds_of(expires, datetime.now(timezone.utc))
        facts = self._host.sharing.ask(
            "share",
            agent=self.agent,
            name=name,
            expires_s=seconds,
            readonly=readonly,
            max_connections=max_connections,
            label=label,
        )
        return Share(facts, self.page(name), self._host.sharing.ask)

    def shares(self, name: str | None = None) -> list[Share]:
        """The links that are good now, to one instance or to all; their secrets are not kept."""
        ask = self._host.sharing.ask
        found = ask("list", agent=self.agent, name=name)["shares"]
        return [Share(facts, self.page(facts["name"]), ask) for facts in found]

    def stop(self) -> None:
        """Serve the class no longer.

        Clients are closed with 1001, `on_close` and `on_stop` run.
        """
        self._host.submit(self._host.withdraw, self.agent).result(ASK_S)

    def reset(self, name: str) -> None:
        """Drop what is stored of an instance; its clients stay and see the initial state."""
        self._do(name, lambda instance: instance.reset())

    async def sleep(self, name: str) -> None:
        """Let an instance leave memory; its sockets stay, and the next arrival wakes it.

        `on_stop` has ended when it returns. Instances that nobody uses fall asleep by themselves.
        """
        await asyncio.wrap_future(self._host.submit(self._now, name, self._host.rest.lull))

    def _do(self, name: str, work: Callable[[Any], None]) -> None:
        self._host.submit(self._now, name, work).result(ASK_S)

    def _now(self, name: str, work: Callable[[Any], Any]) -> Any:
        return work(self._host.instance(self._hosted, name))

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Show the live panel, where something can show it."""
        viewer = self._host.viewer
        return {"text/plain": repr(self)} if viewer is None else viewer.mimebundle(self)

    def __repr__(self) -> str:
        where = self.url("NAME").replace("NAME", "…") if self.is_served else "stopped"
        return f"<agents {self.agent_class.__name__} at {where}, {len(self)} instances>"
