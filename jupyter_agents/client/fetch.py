"""HTTP to an agent: what its ``on_request`` answers.

The same address as `connect`'s, so that both reach the same instance. Its other half is
`instance.requests`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.httputil import HTTPHeaders
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from jupyter_agents.client.address import Destination, Given
from jupyter_agents.protocol.messages import decode, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tornado.httpclient import HTTPResponse

__all__ = ["FetchResponse", "agent_fetch"]


@dataclass(frozen=True, slots=True)
class FetchResponse:
    """What an agent answered.

    Attributes
    ----------
    status : int
    headers : Mapping
        Names are case-insensitive; several values of one are joined by commas.
    body : bytes
    url : str
        Without the token.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=HTTPHeaders)
    body: bytes = b""
    url: str = ""

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 become U+FFFD."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Decode the body; ValueError when it is not JSON."""
        return decode(self.body)


async def agent_fetch(
    agent: object,
    name: str = "default",
    path: str = "",
    *,
    host: str | None = None,
    method: str = "GET",
    body: object = None,
    headers: Given = None,
    query: Given = None,
    token: str | None = None,
    protocol: str | None = None,
    prefix: str = "agents",
    base_path: str | None = None,
    timeout: float = 30.0,
) -> FetchResponse:
    """Give an agent's answer to an HTTP request; an error status is an answer, too.

    Parameters
    ----------
    agent, name, host, query, token, protocol, prefix, base_path
        As for `connect`.
    path : str
        What follows the instance on the URL; a slash in front is fine.
    body : str, bytes or other
        Anything else than text and bytes is sent as JSON.
    timeout : float
        Seconds for the whole.

    Raises
    ------
    OSError
        When no server answers; TimeoutError when none does in time.
    """
    destination = Destination(
        agent=agent,
        name=name,
        host=host,
        protocol=protocol,
        prefix=prefix,
        base_path=base_path,
        path=path.lstrip("/") or None,
        query=query,
        token=token,
        headers=headers,
    )
    url, sent_headers = await destination.resolve({}, scheme="http")
    data, kind = _as_body(body)
    if kind and "content-type" not in map(str.lower, sent_headers):
        sent_headers["Content-Type"] = kind
    request = HTTPRequest(
        url,
        method.upper(),
        sent_headers,
        data,
        connect_timeout=timeout,
        request_timeout=timeout,
        # A token must not follow a redirect to somewhere else.
        follow_redirects=False,
        allow_nonstandard_methods=True,
    )
    response = await _fetched(request)
    return FetchResponse(response.code, response.headers, response.body or b"", url)


async def _fetched(request: HTTPRequest) -> HTTPResponse:
    client = SimpleAsyncHTTPClient(force_instance=True)
    try:
        return await client.fetch(request, raise_error=False)
    except HTTPClientError as error:
        if error.code == 599:
            # Tornado's own number for "no answer in time".
            raise TimeoutError(str(error)) from error
        raise
    finally:
        client.close()


def _as_body(body: object) -> tuple[bytes | None, str]:
    """Give the bytes of a body and their content type."""
    if body is None:
        return None, ""
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), "application/octet-stream"
    return encode(body), "application/json"
