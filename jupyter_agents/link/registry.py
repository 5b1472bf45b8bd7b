"""Which class is served at which address, and by whom. Pure; part of the relay.

Two classes never meet at one address, and a second host takes a class over only when it says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import AgentNotFound
from jupyter_agents.link.frames import unpack_object
from jupyter_agents.link.records import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jupyter_agents.link.records import ConnectionRecord, HostPort

__all__ = ["ACCESS", "Registry"]


ACCESS = ("jupyter", "link", "public")
"""Who may talk to a class: who signed in; who has a link, too; everyone."""


class Registry:
    """Served classes by their canonical address; `served` is for looking only.

    Parameters
    ----------
    allow_public : bool
        Whether a class with ``access = "public"`` is served at all.
    """

    def __init__(self, allow_public: bool = False) -> None:
        self._allow_public = allow_public
        self.served: dict[str, Served] = {}
        self._spellings: dict[str, str] = {}

    def __iter__(self) -> Iterator[Served]:
        return iter(list(self.served.values()))

    def find(self, spelling: str) -> Served:
        """Return what is served under this part of a URL; AgentNotFound otherwise."""
        served = self._meets(spelling)
        if served is None:
            raise AgentNotFound(spelling, tuple(sorted(self.served)))
        return served

    def holds(self, served: Served) -> bool:
        """Whether this very class is still served, or parked."""
        return self.served.get(served.agent) is served

    def refusal(self, host: HostPort, wish: dict[str, Any]) -> str | None:
        """Return why a host may not serve what it wishes to, as a sentence; None when it may."""
        access = dict(wish.get("options") or {}).get("access", "jupyter")
        if access not in ACCESS:
            return f"{wish['class']}.access is {', '.join(ACCESS)}, not {access!r}"
        if access == "public" and not self._allow_public:
            return (
                f'{wish["class"]} has access = "public", and this server allows that to no class '
                '(allow_public is off in its configuration); with access = "link" people get '
                "in by the links that you share"
            )
        for spelling in (wish["agent"], *wish["spellings"]):
            other = self._meets(spelling)
            if other is None:
                continue
            if other.agent != wish["agent"]:
                return (
                    f"{wish['class']} and {other.class_name} (served by {other.where}) meet at "
                    f'agents/{spelling}; give one of them another address with slug="…"'
                )
            if not wish.get("takeover") and not _is_own(other, host):
                how = "is served already, by" if other.host else "has clients that wait for"
                return (
                    f"{wish['class']} {how} {other.where}; stop it there, or "
                    "pass takeover=True to take it over with its connections"
                )
        return None

    def records_of(self, host: HostPort) -> list[ConnectionRecord]:
        """List the connections to what a host serves."""
        return [r for served in self if served.host is host for r in served.records.values()]

    def put(self, host: HostPort, wish: dict[str, Any]) -> Served:
        """Take note of what a host serves from now on; who served it before is the caller's."""
        agent, class_name = str(wish["agent"]), str(wish["class"])
        spellings = tuple(dict.fromkeys([agent, *(str(s) for s in wish["spellings"])]))
        options, session = dict(wish.get("options") or {}), str(wish.get("session") or "")
        autostart = str(wish.get("autostart") or "")
        # From here on nothing raises: a malformed wish must not leave half a class behind.
        served = self.served.get(agent)
        if served is None:
            served = self.served[agent] = Served(agent, "", (), None, {})
        self._unspell(served)
        served.class_name, served.spellings = class_name, spellings
        served.about, served.options = dict(host.about), options
        served.autostart = autostart
        served.session, served.wants_marks = session, bool(wish.get("marks", True))
        self._spellings.update(dict.fromkeys(spellings, agent))
        return served

    def note_instance(self, host: HostPort, word: dict[str, Any]) -> dict[str, str] | None:
        """Take note that an instance woke, fell asleep or ended; None when it is another's."""
        facts = {key: str(word[key]) for key in ("agent", "name", "state")}
        served = self.served.get(facts["agent"])
        if served is None or served.host is not host:
            return None
        if facts["state"] == "gone":
            served.instances.pop(facts["name"], None)
        else:
            served.instances[facts["name"]] = facts["state"]
        return facts

    def tallied(
        self,
        tell: Callable[[str, dict[str, Any]], None],
        host: HostPort,
        number: int,
        payload: bytes,
    ) -> None:
        """Pass on what a host's agents did, class by class; another host's are left out."""
        for tally in unpack_object(payload)["tallies"]:
            served = self.served.get(str(tally["agent"]))
            if served is not None and served.host is host:
                tell("tally", dict(tally))

    def drop(self, served: Served) -> None:
        """Forget a class."""
        del self.served[served.agent]
        self._unspell(served)

    def _meets(self, spelling: str) -> Served | None:
        return self.served.get(self._spellings.get(spelling, ""))

    def _unspell(self, served: Served) -> None:
        for spelling in served.spellings:
            self._spellings.pop(spelling, None)


def _is_own(served: Served, host: HostPort) -> bool:
    """Whether a host may serve this class again without asking.

    It does already, or its kernel did, or the kernel that had its notebook before it.
    """
    if served.host is not None:
        return served.host is host
    return any(
        served.about.get(word) == host.about[word]
        for word in ("kernel_id", "notebook")
        if host.about.get(word)
    )
