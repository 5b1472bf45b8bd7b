"""What a client asked, without what it signed in with.

A Jupyter token opens a shell, and an agent is anybody's code: so the token, the login cookies and
the XSRF words that Jupyter's own sign-in consumed never cross the link. What only looks like them
(an application's own ``?token=``) stays. Reads Tornado's request; makes a `protocol.http.Request`.
"""

from __future__ import annotations

import hmac
import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote_plus, urlsplit, urlunsplit

from jupyter_agents.protocol.http import Headers, Request

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from tornado.httputil import HTTPServerRequest
    from tornado.web import RequestHandler

    from jupyter_agents.protocol.names import Address

__all__ = [
    "COOKIE",
    "Secrets",
    "has_pass",
    "hide_passes",
    "hide_secrets",
    "is_jupyter_cookie",
    "log_request",
    "presented_tokens",
    "query_values",
    "read_request",
    "request_summary",
    "same_text",
]

_log = logging.getLogger(__name__)

_AUTHORIZATION = re.compile(r"\s*(?:token|bearer)\s+(.+?)\s*", re.IGNORECASE)
COOKIE = "jupyter-agents-share"
"""What a browser keeps of a link, so that the page can be loaded again; for its path only."""

_JUPYTER_COOKIE = re.compile(rf"username-.*|jupyterhub-.*|_xsrf|{COOKIE}", re.IGNORECASE)
_XSRF_HEADERS = frozenset({"x-xsrftoken", "x-csrftoken"})
_CLEANED_HEADERS = _XSRF_HEADERS | {"cookie", "authorization", "referer"}
_PASS = re.compile(
    r"(?<![A-Za-z0-9])(?:jas\.[0-9a-f]{8}\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"
    r"|jat\.[A-Za-z0-9_-]{16,})"
)
"""Links and tickets, `capability.py` and `tickets.py`, wherever they stand in a text."""
_TELLING_CHARS = 8
"""A shorter secret counts as a whole value only: within other text it would be everywhere."""


def same_text(given: str, secret: str) -> bool:
    """Compare in a time that does not tell how much of it was right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode("utf-8", "replace"))


def is_jupyter_cookie(name: str, more: Collection[str] = ()) -> bool:
    """Tell whether a cookie is one of Jupyter's own; `more` are names from its settings."""
    return name in more or _JUPYTER_COOKIE.fullmatch(name) is not None


def query_values(request: HTTPServerRequest, name: str) -> list[str]:
    """List the values of one name in the query, empty ones left out."""
    query = request.query
    if name not in query and "%" not in query:
        return []
    pairs = parse_qsl(query, keep_blank_values=True, errors="replace")
    return [value for found, value in pairs if found == name and value]


def hide_passes(uri: str) -> str:
    """Return a request's URI without the links and tickets in it, for logs."""
    path, mark, query = uri.partition("?")
    pieces = [_hidden(piece) for piece in query.split("&")]
    return _PASS.sub("[secret]", path) + mark + "&".join(pieces)


def hide_secrets(uri: str) -> str:
    """Return a URI without what could be Jupyter's credentials either, for logs."""
    path, mark, query = hide_passes(uri).partition("?")
    pieces = [_without_value(piece) for piece in query.split("&")]
    return path + mark + "&".join(pieces)


def _without_value(piece: str) -> str:
    name = piece.partition("=")[0]
    return f"{name}=[secret]" if unquote_plus(name) in ("token", "_xsrf") else piece


def has_pass(text: str) -> bool:
    """Tell whether a link or ticket stands in a text, percent-encoded or not."""
    if _PASS.search(text) is not None:
        return True
    return "%" in text and _PASS.search(unquote_plus(text)) is not None


def _hidden(piece: str) -> str:
    return f"{piece.partition('=')[0]}=[secret]" if has_pass(piece) else piece


def presented_tokens(request: HTTPServerRequest) -> tuple[str, ...]:
    """List what could be a token: the ``token`` query values and the Authorization header's."""
    found = query_values(request, "token")
    header = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
    if header is not None:
        found.append(header[1])
    return tuple(found)


class Secrets:
    """The credentials of this server that a request may carry.

    Links and tickets are always among them, good or not: they are told by their form.

    Parameters
    ----------
    tokens : collection of str
        Tokens; empty ones are ignored.
    cookies : collection of str
        Names of login cookies beside Jupyter's usual ones.
    """

    def __init__(self, tokens: Collection[str] = (), cookies: Collection[str] = ()) -> None:
        self._tokens = tuple({token for token in tokens if token})
        self._cookies = frozenset(cookies)
        telling = [token for token in self._tokens if len(token) >= _TELLING_CHARS]
        self._telling = tuple({*telling, *(quote(token, safe="") for token in telling)})

    def has(self, value: str) -> bool:
        """Tell whether a value is one of the tokens."""
        return any(same_text(value, token) for token in self._tokens)

    def query(self, query: str) -> str:
        """Return a query string without the pieces that carry a credential."""
        return "&".join(piece for piece in query.split("&") if not self._is_telling_pair(piece))

    def url(self, url: str) -> str:
        """Return a URL without a credential in its query or user part."""
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2]
        query = self.query(parts.query)
        return urlunsplit(parts._replace(netloc=netloc, query=query, fragment=""))

    def headers(self, request: HTTPServerRequest) -> Iterator[tuple[str, str]]:
        """Yield the headers without credentials; one that cannot be cleaned is left out."""
        headers = [(name, name.lower(), value) for name, value in request.headers.get_all()]
        # Mostly one look at all the others finds nothing.
        others = [value for _, folded, value in headers if folded not in _CLEANED_HEADERS]
        are_clean = not self._is_telling("\n".join(others))
        for name, folded, value in headers:
            if are_clean and folded not in _CLEANED_HEADERS:
                yield name, value
            elif (kept := self._header(folded, value)) is not None:
                yield name, kept

    def cookies(self, header: str) -> str:
        """Return a Cookie header without Jupyter's cookies; "" when nothing is left."""
        pieces = [piece.strip() for piece in header.split(";")]
        return "; ".join(piece for piece in pieces if piece and not self._is_own_cookie(piece))

    def is_own(self, cookie: str) -> bool:
        """Tell whether a cookie of this name belongs to Jupyter's sign-in."""
        return is_jupyter_cookie(cookie, self._cookies)

    def _header(self, name: str, value: str) -> str | None:
        if name in _XSRF_HEADERS:
            return None
        if name == "cookie":
            return self.cookies(value) or None
        if name == "authorization":
            given = _AUTHORIZATION.fullmatch(value)
            if given is not None and (self.has(given[1]) or has_pass(given[1])):
                return None
        elif name == "referer":
            value = self._referer(value)
        return None if self._is_telling(value) else value

    def _referer(self, value: str) -> str:
        # A page that was opened with ?token= names it in the Referer of every request it makes.
        try:
            return self.url(value)
        except ValueError:
            return ""

    def _is_own_cookie(self, piece: str) -> bool:
        return self.is_own(piece.partition("=")[0].strip())

    def _is_telling_pair(self, piece: str) -> bool:
        name, _, value = piece.partition("=")
        plain = unquote_plus(value)
        return unquote_plus(name) == "_xsrf" or self.has(plain) or self._is_telling(plain)

    def _is_telling(self, text: str) -> bool:
        return has_pass(text) or any(token in text for token in self._telling)


def read_request(
    request: HTTPServerRequest,
    secrets: Secrets,
    address: Address,
    tail: str,
    user: Mapping[str, Any] | None,
) -> Request:
    """Return a request as its agent may see it, without the body, which crosses the link apart."""
    query = secrets.query(request.query)
    url = f"{request.protocol}://{request.host}{request.path}"
    return Request(
        method=request.method or "GET",
        url=f"{url}?{query}" if query else url,
        path=tail,
        query_all=_query_all(query),
        headers=Headers(secrets.headers(request)),
        cookies=_cookies(request, secrets),
        user=user,
        agent=address.agent,
        name=address.name,
        remote_ip=request.remote_ip or "",
    )


def request_summary(request: HTTPServerRequest) -> str:
    """Return one line for a log: the path, and not the query."""
    return f"{request.method} {request.path} ({request.remote_ip})"


def log_request(handler: RequestHandler) -> None:
    """Log a finished request without its query, for ``Application(log_function=…)``."""
    status = handler.get_status()
    level = logging.DEBUG if status < 400 else logging.WARNING if status < 500 else logging.ERROR
    milliseconds = 1000 * handler.request.request_time()
    _log.log(level, "%d %s %.1f ms", status, request_summary(handler.request), milliseconds)


def _cookies(request: HTTPServerRequest, secrets: Secrets) -> dict[str, str]:
    cookies = request.cookies
    return {name: cookies[name].value for name in cookies if not secrets.is_own(name)}


def _query_all(query: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, errors="replace"):
        found[name] = (*found.get(name, ()), value)
    return found
