"""Where an agent lives: a class, a name and a host become ``ws://…/agents/chat-room/lobby``.

Promises the SDK's spelling, so that the same arguments reach the same instance from JavaScript.
Opens nothing; which server is meant when none is named, `discovery` knows. Its other half is
`server.sockets`.
"""

from __future__ import annotations

import inspect
import ipaddress
import re
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from jupyter_agents.client.discovery import find_server
from jupyter_agents.errors import AddressError
from jupyter_agents.protocol.names import MAX_NAME_BYTES, kebab_case

__all__ = ["Destination", "Given", "Target", "agent_slug", "find_target"]

Given = (
    Mapping[str, Any]
    | Callable[[], Mapping[str, Any] | None]
    | Callable[[], Awaitable[Mapping[str, Any] | None]]
    | None
)
"""A mapping, or a function or coroutine function that gives one, asked at every connection."""

_SCHEME = re.compile(r"(?i)(ws|http)(s?)://")
_SLASHES = re.compile(r"/+")
_LOCAL_NAME = re.compile(r"(?i)localhost|.+\.localhost")


@dataclass(frozen=True, slots=True)
class Target:
    """One agent instance on one server.

    Attributes
    ----------
    agent, name : str
        The class's spelling, and the instance.
    netloc : str
        Host and port.
    secure : bool
        Whether TLS is used.
    path : str
        Percent-encoded, from the root, without a query.
    """

    agent: str
    name: str
    netloc: str
    secure: bool
    path: str

    def url(self, query: Mapping[str, Any] | None = None, *, scheme: str = "ws") -> str:
        """Give the URL; ``scheme="http"`` for HTTP. Query values that are None are left out."""
        pairs = urlencode(list(_pairs(query or {})))
        whole = f"{scheme}{'s' if self.secure else ''}://{self.netloc}{self.path}"
        return f"{whole}?{pairs}" if pairs else whole


def agent_slug(agent: object) -> str:
    """Spell an agent as its URL does.

    Parameters
    ----------
    agent : type, str or AgentNamespace
        A class, its name or its slug, or what `serve` returned (which knows a slug given there).

    Raises
    ------
    AddressError
        When it is empty, or has a slash.
    """
    if isinstance(agent, type):
        slug = getattr(agent, "slug", None)
        return slug if isinstance(slug, str) else kebab_case(agent.__name__)
    if not isinstance(agent, str):
        known = getattr(agent, "agent", None)
        if not isinstance(known, str):
            raise TypeError(f"an agent is a class or its name, not {type(agent).__name__!r}")
        return known
    if not agent or "/" in agent:
        raise AddressError(agent, "cannot be an agent's name on a URL")
    return kebab_case(agent)


def find_target(
    agent: object,
    name: str = "default",
    *,
    host: str,
    protocol: str | None = None,
    prefix: str = "agents",
    base_path: str | None = None,
    path: str | None = None,
) -> Target:
    """Give the address of one instance.

    Parameters
    ----------
    agent : type or str
    name : str
        Of the instance, as it is: it is percent-encoded here.
    host : str
        ``"localhost:8888"``, or a URL that may end in the server's base_url.
    protocol : str or None
        ``"ws"`` or ``"wss"``; None takes the host's, else ``ws`` for this machine and private
        networks.
    prefix : str
        What stands before the agent; may have several segments.
    base_path : str or None
        Stands for prefix, agent and name together, where the server itself chooses the instance.
    path : str or None
        More segments behind, without a slash in front; percent-encoded already.

    Raises
    ------
    AddressError
        When one of them cannot be used.
    """
    netloc, root, given = _split_host(host)
    protocol = protocol or given or ("ws" if _is_near(netloc) else "wss")
    if protocol not in ("ws", "wss"):
        raise AddressError(protocol, "is not a protocol: use ws or wss")
    if path is not None and path.startswith("/"):
        raise AddressError(path, "cannot be a path: it starts with a slash")
    slug = agent_slug(agent)
    middle = base_path or f"{prefix}/{quote(slug, safe='')}/{_quoted_name(name)}"
    whole = _SLASHES.sub("/", "/".join(["", root, middle, path or ""]))
    return Target(slug, name, netloc, protocol == "wss", whole.rstrip("/"))


def _split_host(host: str) -> tuple[str, str, str | None]:
    """Take a host apart: host and port, path below it, protocol if it says one."""
    text = host.strip()
    scheme = _SCHEME.match(text)
    if scheme:
        text = text[scheme.end() :]
    netloc, _, root = text.partition("/")
    if not netloc or re.search(r"[?#@\s]", text) or "://" in text:
        raise AddressError(host, "is not a host: use HOST:PORT or http://HOST:PORT/base/")
    return netloc, root, ("wss" if scheme[2] else "ws") if scheme else None


def _is_near(netloc: str) -> bool:
    """Tell whether this is the same machine or a private network, where TLS is rare."""
    host = netloc[1:].partition("]")[0] if netloc.startswith("[") else netloc.partition(":")[0]
    if _LOCAL_NAME.fullmatch(host):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private


def _quoted_name(name: str) -> str:
    if not name or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise AddressError(name, f"cannot be an instance's name: 1 to {MAX_NAME_BYTES} bytes")
    if "/" in name:
        warnings.warn(
            f"The SDK's JavaScript clients do not reach a name with a slash: {name!r}",
            stacklevel=4,
        )
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        raise AddressError(name, "cannot be an instance's name: it is not Unicode") from None


def _pairs(query: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key, value in query.items():
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if item is not None:
                yield key, str(item).lower() if isinstance(item, bool) else str(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a client goes, and what it shows at the door; see `AgentClient` for the fields."""

    agent: object
    name: str = "default"
    host: str | None = None
    protocol: str | None = None
    prefix: str = "agents"
    base_path: str | None = None
    path: str | None = None
    query: Given = None
    token: str | None = None
    headers: Given = None

    def __post_init__(self) -> None:
        """Refuse a wrong address where it is written; a server is looked for only on the way."""
        self._target(self.host or "localhost")

    def leads_elsewhere(self, other: Destination) -> bool:
        """Tell whether the two differ in more than credentials."""
        return any(
            getattr(self, field) != getattr(other, field)
            for field in ("agent", "name", "host", "protocol", "prefix", "base_path", "path")
        )

    def find(self) -> tuple[Target, str]:
        """Give the address and the token for it; without a host, those of the running server.

        Raises
        ------
        ServerNotFound
            When there is none.
        """
        if self.host is not None:
            return self._target(self.host), self.token or ""
        server = find_server()
        return self._target(server.url), self.token if self.token is not None else server.token

    async def resolve(
        self, more: Mapping[str, str], *, scheme: str = "ws"
    ) -> tuple[str, dict[str, str]]:
        """Give URL and headers; providers among the fields are asked anew.

        Parameters
        ----------
        more : Mapping
            Query values besides the author's, which win.
        """
        target, token = self.find()
        query = {**more, **await _provided("query", self.query)}
        headers = {
            key: str(value) for key, value in (await _provided("headers", self.headers)).items()
        }
        if token and "authorization" not in map(str.lower, headers):
            headers["Authorization"] = f"token {token}"
        return target.url(query, scheme=scheme), headers

    def _target(self, host: str) -> Target:
        return find_target(
            self.agent,
            self.name,
            host=host,
            protocol=self.protocol,
            prefix=self.prefix,
            base_path=self.base_path,
            path=self.path,
        )


async def _provided(what: str, given: Given) -> Mapping[str, Any]:
    """Give a mapping, asking a function or coroutine function for it."""
    value = given() if callable(given) else given
    if inspect.isawaitable(value):
        value = await value
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a mapping, or give one, not {type(value).__name__!r}")
    return value
