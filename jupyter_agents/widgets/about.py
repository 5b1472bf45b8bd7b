"""The head of every live view: which agent and instance, where, how it is, and how busy."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jupyter_agents.sharing import Share, seconds_of
from jupyter_agents.widgets.section import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jupyter_agents.host.host import HostEvent
    from jupyter_agents.widgets.feed import Feed
    from jupyter_agents.widgets.section import Ask, Parcel

__all__ = ["About"]

MAX_NAMES = 500


class About(Section):
    """Facts that a header shows; only those that changed are sent again."""

    key = "about"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._told: dict[str, Any] = {}
        self._rates = _Rates()
        self._names_differ = True
        self._names: list[list[Any]] = []

    def begin(self) -> None:
        """Count from here."""
        self._told = {}
        self._rates = _Rates()
        self._names_differ = True

    def hear(self, event: HostEvent) -> None:
        """Count messages of the chosen instance; the list of instances may differ."""
        if event.kind in ("instance", "connect", "disconnect"):
            self._names_differ = True
            self.feed.touch()
        if event.name == self.feed.name:
            self._rates.count(event.kind)

    def tick(self) -> None:
        """Take the rates; say what is different."""
        self._rates.take(self.feed.host.loop.time())
        self._names_differ = self._names_differ or len(self._instances()) != len(self._names)
        if self._facts() != self._told:
            self.feed.touch()

    def whole(self, parcel: Parcel) -> Any:
        """All of it."""
        self._told = self._facts()
        return self._told

    def changes(self, parcel: Parcel) -> Any:
        """What is not as it was told."""
        facts = self._facts()
        told, self._told = self._told, facts
        return {key: facts[key] for key in facts if told.get(key) != facts[key]} or None

    def asked(self, ask: Ask) -> Any:
        """``select`` another instance, ``share`` this one, or ``unshare`` what was shared."""
        if ask.what == "select":
            return self.feed.select(str(ask.given.get("name", ""))[:1024] or "default")
        if ask.what == "share":
            return self._share(ask.given)
        if ask.what == "unshare":
            question = {"do": "revoke", "agent": self.feed.agent}
            return self.feed.host.sharing.put({**question, "id": str(ask.given.get("id", ""))})
        return NotImplemented

    async def _share(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A link, under the address at which the view found the server."""
        feed = self.feed
        expires = seconds_of(str(given.get("expires", "2h"))[:20], datetime.now(timezone.utc))
        wish = {"agent": feed.agent, "name": feed.name, "expires_s": expires}
        readonly = bool(given.get("readonly"))
        facts = await feed.host.sharing.put({"do": "share", **wish, "readonly": readonly})
        page = str(given.get("page", ""))[:4096].partition("?")[0]
        share = Share(facts, page, feed.host.sharing.ask)
        return {"id": share.id, "url": share.url, "qr": share.qr_uri(), "text": share.summary}

    def _facts(self) -> dict[str, Any]:
        feed = self.feed
        hosted, server = feed.hosted, feed.host.server
        base = str(server.get("url") or "")
        return {
            "agent": feed.agent,
            "class": hosted.cls.__name__ if hosted is not None else feed.agent,
            "name": feed.name,
            "names": self._list_names(),
            "light": self._light(),
            "base": base,
            "path": f"agents/{feed.agent}/{quote(feed.name, safe='')}",
            "token": str(server.get("token") or ""),
            "rates": self._rates.last,
            "shareable": hosted is not None and hosted.cls.access != "jupyter",
        }

    def _light(self) -> str:
        """How the instance is.

        ``live``, ``busy`` (a cell runs beside it), ``asleep``, ``ready`` (it never ran here),
        ``away`` (no link to the server) or ``stopped``.
        """
        feed = self.feed
        instance = feed.instance
        if feed.hosted is None:
            return "stopped"
        if feed.host.uplink is None:
            return "away"
        if instance is None:
            return "ready"
        if not instance.started:
            return "asleep"
        return "busy" if feed.is_busy else "live"

    def _instances(self) -> dict[str, Any]:
        hosted = self.feed.hosted
        return hosted.instances if hosted is not None else {}

    def _list_names(self) -> list[list[Any]]:
        if self._names_differ:
            self._names_differ = False
            known = sorted(self._instances().items())[:MAX_NAMES]
            self._names = [[name, len(instance.members)] for name, instance in known]
        return self._names


class _Rates:
    """Messages a second, in and out."""

    def __init__(self) -> None:
        self.last = [0.0, 0.0]
        self._counts = [0, 0]
        self._since: float | None = None

    def count(self, kind: str) -> None:
        if kind == "message":
            self._counts[0] += 1
        elif kind in ("sent", "broadcast"):
            self._counts[1] += 1

    def take(self, now: float) -> None:
        if self._since is not None and now > self._since:
            seconds = now - self._since
            self.last = [round(count / seconds, 1) for count in self._counts]
        self._since, self._counts = now, [0, 0]
