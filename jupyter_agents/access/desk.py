"""Where a kernel asks for links to its own agents: make one, list them, revoke one.

The answer to each SHARE frame is one SHARED frame. A kernel is known by its link, and has a say in
the classes that it serves itself and in nothing else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jupyter_agents.errors import AddressError, AgentNotFound, ShareError
from jupyter_agents.link.frames import Kind, pack_object, unpack_object
from jupyter_agents.protocol.names import split_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_agents.access.gate import Gate
    from jupyter_agents.access.shares import Shared
    from jupyter_agents.link.records import HostPort, Served

__all__ = ["Desk"]

_log = logging.getLogger(__name__)


class Desk:
    """Answers kernels.

    Parameters
    ----------
    gate : Gate
        What makes and keeps links.
    find : callable
        Spelling → what is served there; AgentNotFound otherwise.
    """

    def __init__(self, gate: Gate, find: Callable[[str], Served]) -> None:
        self._gate = gate
        self._find = find

    def asked(self, host: HostPort, number: int, payload: bytes) -> None:
        """A SHARE frame came: ``{"do": "share" | "list" | "revoke", "agent", …}``."""
        question = unpack_object(payload)
        try:
            answer = self._do(host, question)
        except ShareError as error:
            answer = {"error": str(error)}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            # what a cell passed to share(…) must not cost its kernel the link
            answer = {"error": f"This cannot be asked of links: {error!r}"}
        host.send(Kind.SHARED, number, pack_object(answer))

    def _do(self, host: HostPort, question: dict[str, Any]) -> dict[str, Any]:
        served = self._own(host, str(question["agent"]))
        do = question["do"]
        if do == "share":
            return self._share(served, question)
        if do == "list":
            return {"shares": self._list(served.agent, question.get("name"))}
        if do == "revoke":
            return self._revoke(served.agent, str(question["id"]))
        raise ShareError(f"{do!r} is not something that can be done with links")

    def _own(self, host: HostPort, agent: str) -> Served:
        try:
            served = self._find(agent)
        except AgentNotFound as error:
            raise ShareError(str(error)) from None
        if served.host is not host:
            raise ShareError(f"{served.class_name} is not served by this kernel")
        return served

    def _share(self, served: Served, wish: dict[str, Any]) -> dict[str, Any]:
        if served.options.get("access", "jupyter") == "jupyter":
            raise ShareError(
                f"{served.class_name} lets in only who signs in to Jupyter; to allow links, write "
                f'access = "link" in the class and run its cell again'
            )
        most = wish.get("max_connections")
        shared, text = self._gate.share(
            served.agent,
            _checked_name(str(wish["name"])),
            float(wish["expires_s"]),
            readonly=bool(wish.get("readonly")),
            max_connections=None if most is None else int(most),
            label=str(wish.get("label") or ""),
        )
        facts = self._facts(shared)
        _log.info("A link was shared: %r", facts)  # as repr: a name may hold line breaks
        return {**facts, "secret": text}

    def _list(self, agent: str, name: str | None) -> list[dict[str, Any]]:
        now = self._gate.now()
        return [self._facts(one) for one in self._gate.shares.of(agent, name, now)]

    def _revoke(self, agent: str, share_id: str) -> dict[str, Any]:
        shared = self._gate.shares.get(share_id)
        if shared is None or shared.capability.agent != agent:
            raise ShareError(f"{agent} has no link {share_id!r}")
        self._gate.revoke(share_id)
        _log.info("Link %s to %s was revoked", shared.capability.id, agent)
        return {"revoked": True}

    def _facts(self, shared: Shared) -> dict[str, Any]:
        """What may be shown of a link: everything but what opens the door."""
        link = shared.capability
        return {
            "id": link.id,
            "agent": link.agent,
            "name": link.name,
            "expires": link.expires,
            "readonly": link.readonly,
            "max_connections": link.max_connections,
            "label": shared.label,
            "connections": self._gate.count(link.id),
        }


def _checked_name(name: str) -> str:
    """Return a name that an address can have; ShareError otherwise."""
    try:
        split_path(f"agent/{quote(name, safe='')}")
    except (AddressError, UnicodeError) as error:
        raise ShareError(f"An instance cannot have this name: {error}") from None
    return name
