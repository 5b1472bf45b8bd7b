"""HTTP requests and answers as plain data that crosses the link.

Promises one shape for a WebSocket's opening request and for plain HTTP, with Jupyter's
credentials already taken out by the server. Must not know Tornado; the server's handlers build
requests and write the answers.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jupyter_agents.protocol.values import decode, encode

__all__ = ["Headers", "Request", "Response"]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_BODYLESS = frozenset({204, 304})
_TEXT = "text/plain; charset=UTF-8"
_JSON = "application/json"
_BYTES = "application/octet-stream"


class Headers(Mapping[str, str]):
    """Headers by name in any case, as they were spelled; repeated ones joined by ``", "``."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        pairs = items.items() if isinstance(items, Mapping) else items
        self._items: dict[str, tuple[str, str]] = {}
        for name, value in pairs:
            spelled, before = self._items.get(name.lower(), (name, None))
            self._items[name.lower()] = (
                spelled,
                value if before is None else f"{before}, {value}",
            )

    def __getitem__(self, name: str) -> str:
        return self._items[name.lower()][1]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._items

    def __iter__(self) -> Iterator[str]:
        return (spelled for spelled, _ in self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._folded() == Headers(other)._folded()

    def __hash__(self) -> int:
        return hash(frozenset(self._folded().items()))

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"

    def _folded(self) -> dict[str, str]:
        return {name: value for name, (_, value) in self._items.items()}


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for, over HTTP or when it opened a WebSocket.

    Parameters
    ----------
    method, url : str
        As the client asked; the URL is whole, with Jupyter's credential taken out.
    path : str
        The tail after ``/agents/{agent}/{name}``: ``""`` or ``"/x/y"``.
    query, query_all : Mapping
        The first value of each name, and all of them. Either may be left out: it follows from
        the other.
    headers : Headers
        A plain mapping is converted.
    cookies : Mapping
        Without Jupyter's own login cookies.
    body : bytes
        Empty for a WebSocket.
    user : Mapping or None
        Jupyter's identity (``username``, ``name``, ``display_name``, …); None where nobody
        signed in.
    agent, name : str
        Whom it addresses, decoded.
    remote_ip : str
        The client's address as Jupyter Server sees it.
    """

    method: str = "GET"
    url: str = ""
    path: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    query_all: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=Headers)
    cookies: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    user: Mapping[str, Any] | None = None
    agent: str = ""
    name: str = ""
    remote_ip: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.headers, Headers):
            object.__setattr__(self, "headers", Headers(self.headers))
        if self.query_all and not self.query:
            object.__setattr__(self, "query", _first_values(self.query_all))
        elif self.query and not self.query_all:
            object.__setattr__(self, "query_all", {k: (v,) for k, v in self.query.items()})

    @property
    def text(self) -> str:
        """The body as UTF-8 text; bytes that are not UTF-8 become U+FFFD."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the body read as JSON.

        Raises
        ------
        ValueError
            When it is not JSON.
        """
        return decode(self.body)

    def replace(self, **changes: Any) -> Request:
        """Return a request with other fields; `query` and `query_all` take each other along."""
        if "query" in changes:
            changes.setdefault("query_all", {})
        elif "query_all" in changes:
            changes["query"] = {}
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the body as JSON-safe values, for `from_dict`."""
        return {
            "method": self.method,
            "url": self.url,
            "path": self.path,
            "query": {name: list(values) for name, values in self.query_all.items()},
            "headers": list(self.headers.items()),
            "cookies": dict(self.cookies),
            "user": None if self.user is None else dict(self.user),
            "agent": self.agent,
            "name": self.name,
            "remote_ip": self.remote_ip,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], body: bytes = b"") -> Request:
        """Return the request that `to_dict` described, with its body.

        Raises
        ------
        KeyError
            When a field is missing; the two ends of the link then differ in version.
        """
        query_all = {name: tuple(values) for name, values in data["query"].items()}
        return cls(
            method=data["method"],
            url=data["url"],
            path=data["path"],
            query_all=query_all,
            headers=Headers((name, value) for name, value in data["headers"]),
            cookies=data["cookies"],
            body=body,
            user=data["user"],
            agent=data["agent"],
            name=data["name"],
            remote_ip=data["remote_ip"],
        )


@dataclass(slots=True)
class Response:
    """An agent's answer over HTTP.

    Parameters
    ----------
    body : Any
        bytes go out as they are, a str as UTF-8 text, None as an empty body, anything else as
        JSON.
    status : int
        200 to 599.
    headers : Mapping
        Values are strings, or a list of strings for a header that is repeated (``Set-Cookie``).
    content_type : str or None
        None: chosen by the body's type, unless `headers` names one.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str | Iterable[str]] = field(default_factory=dict)
    content_type: str | None = None

    @classmethod
    def of(cls, value: object) -> Response:
        """Return the answer that an author meant by returning `value`.

        A Response is itself; dict and list are JSON, str is text, bytes are bytes; ``(status,
        body)`` sets the status; None is the SDK's 404 ``Not implemented``.

        Raises
        ------
        TypeError
            When the value is of any other type.
        """
        if isinstance(value, Response):
            return value
        if value is None:
            return cls("Not implemented", 404)
        if isinstance(value, (dict, list, str, bytes, bytearray, memoryview)):
            return cls(value)
        if isinstance(value, tuple) and len(value) == 2 and _is_status(value[0]):
            return cls(value[1], value[0])
        raise TypeError(
            f"{type(value).__name__!r} cannot answer a request: return a Response, dict, list, "
            "str, bytes, (status, body) or None"
        )

    def rendered(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return status, header pairs and body as they go out.

        Raises
        ------
        TypeError
            When JSON cannot carry the body.
        ValueError
            When the status or a header cannot be sent.
        """
        if not _is_status(self.status):
            raise ValueError(f"an HTTP status is an integer from 200 to 599, not {self.status!r}")
        headers = _header_pairs(self.headers)
        if self.status in _BODYLESS:
            return int(self.status), headers, b""
        kind, body = _body(self.body)
        return int(self.status), _typed(headers, self.content_type, kind), body


def _first_values(query_all: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {name: values[0] for name, values in query_all.items() if values}


def _is_status(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 200 <= value <= 599


def _header_pairs(headers: Mapping[str, str | Iterable[str]]) -> list[tuple[str, str]]:
    return [
        _checked_header(name, value)
        for name, values in headers.items()
        for value in ((values,) if isinstance(values, str) else values)
    ]


def _checked_header(name: str, value: str) -> tuple[str, str]:
    # A line break in a header would let an author's data write headers of its own.
    if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
        raise ValueError(f"{name!r}: {value!r} cannot be an HTTP header")
    return name, value


def _typed(headers: list[tuple[str, str]], own: str | None, kind: str) -> list[tuple[str, str]]:
    rest = [pair for pair in headers if pair[0].lower() != "content-type"]
    if own is None and len(rest) < len(headers):
        return headers
    chosen = own if own is not None else kind
    return [_checked_header("Content-Type", chosen), *rest] if chosen else rest


def _body(value: Any) -> tuple[str, bytes]:
    if value is None:
        return "", b""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _BYTES, bytes(value)
    if isinstance(value, str):
        return _TEXT, value.encode("utf-8", "replace")
    return _JSON, encode(value)
