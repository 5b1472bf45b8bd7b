"""HTTP requests and answers as plain data."""

from __future__ import annotations

import dataclasses

import pytest

from jupyter_agents.protocol.http import Headers, Request, Response
from jupyter_agents.protocol.messages import decode, encode


def test_headers_are_found_in_any_case():
    """A header is found however it is spelled, and shown as it came."""
    headers = Headers({"X-One": "1"})
    assert headers["x-oNE"] == "1"
    assert "X-ONE" in headers
    assert "x-two" not in headers
    assert 1 not in headers
    assert headers.get("x-two") is None
    assert list(headers) == ["X-One"]
    assert repr(headers) == "Headers({'X-One': '1'})"


def test_repeated_headers_are_joined():
    """Values of one name are joined by a comma, in order."""
    headers = Headers([("Accept", "a"), ("accept", "b"), ("X", "")])
    assert dict(headers) == {"Accept": "a, b", "X": ""}
    assert len(headers) == 2


def test_headers_compare_by_name_in_any_case():
    """Headers are equal to headers and mappings with the same values; and to nothing else."""
    assert Headers({"A": "1"}) == Headers({"a": "1"}) == {"A": "1"}
    assert hash(Headers({"A": "1"})) == hash(Headers({"a": "1"}))
    assert Headers({"A": "1"}) != {"a": "2"}
    assert Headers() != []


def test_request_survives_the_link():
    """A request that crosses the link as JSON and bytes is the same request."""
    request = Request(
        "POST",
        "http://h/agents/a/n/x?k=1&k=2&empty=",
        "/x",
        query_all={"k": ("1", "2"), "empty": ("",)},
        headers=Headers([("Accept", "a"), ("Accept", "b")]),
        cookies={"c": "v"},
        body=b"\xff",
        user={"username": "u"},
        agent="a",
        name="n",
        remote_ip="::1",
    )
    data = decode(encode(request.to_dict()))
    assert "body" not in data
    assert Request.from_dict(data, b"\xff") == request


def test_request_without_a_user_survives_the_link():
    """Nobody signed in stays nobody."""
    assert Request.from_dict(Request().to_dict()) == Request()


def test_first_and_all_query_values_follow_from_each_other():
    """Whichever form of the query is given, the other is there as well."""
    assert Request(query={"a": "1"}).query_all == {"a": ("1",)}
    assert Request(query_all={"a": ("1", "2"), "b": ()}).query == {"a": "1"}
    both = Request(query={"a": "1"}, query_all={"a": ("1", "2")})
    assert (both.query, both.query_all) == ({"a": "1"}, {"a": ("1", "2")})


def test_replaced_query_takes_its_other_form_along():
    """A request with another query has no trace of the old one; the rest stays."""
    request = Request("PUT", query={"a": "1"}, headers={"H": "1"})
    assert request.replace(query={"b": "2"}).query_all == {"b": ("2",)}
    assert request.replace(query_all={"b": ("2", "3")}).query == {"b": "2"}
    assert request.replace(path="/x") == dataclasses.replace(request, path="/x")
    assert request.replace(path="/x").headers["h"] == "1"


def test_request_reads_its_body():
    """The body is there as bytes, text and JSON."""
    assert Request(body=b'{"a":1}').json() == {"a": 1}
    assert Request(body=b"\xc3\xa9\xff").text == "é\ufffd"
    with pytest.raises(ValueError, match=r"."):
        Request(body=b"{").json()


TEXT = ("Content-Type", "text/plain; charset=UTF-8")
JSON = ("Content-Type", "application/json")
BYTES = ("Content-Type", "application/octet-stream")


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        ("é", (200, [TEXT], "é".encode())),
        (b"\x00", (200, [BYTES], b"\x00")),
        (bytearray(b"x"), (200, [BYTES], b"x")),
        (memoryview(b"x"), (200, [BYTES], b"x")),
        ({"a": 1}, (200, [JSON], b'{"a":1}')),
        ([], (200, [JSON], b"[]")),
        (None, (404, [TEXT], b"Not implemented")),
        ((201, {"id": 1}), (201, [JSON], b'{"id":1}')),
        ((202, None), (202, [], b"")),
        ((418, 5), (418, [JSON], b"5")),
        (Response(status=204, body="ignored", headers={"A": "1"}), (204, [("A", "1")], b"")),
        (Response("x", content_type="text/html"), (200, [("Content-Type", "text/html")], b"x")),
        (
            Response("x", headers={"content-type": "text/css"}),
            (200, [("content-type", "text/css")], b"x"),
        ),
        (
            Response("x", headers={"content-type": "a/b"}, content_type="text/html"),
            (200, [("Content-Type", "text/html")], b"x"),
        ),
        (
            Response(b"", headers={"Set-Cookie": ["a=1", "b=2"]}),
            (200, [BYTES, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], b""),
        ),
    ],
)
def test_answer_is_rendered_by_what_it_is(value, rendered):
    """Status, content type and body follow from what the author returned."""
    assert Response.of(value).rendered() == rendered


@pytest.mark.parametrize(
    "value", [5, 1.5, True, object(), (1, 2, 3), (99, "x"), (True, "x"), ("a", "b")]
)
def test_answer_of_another_type_is_refused(value):
    """What cannot be an answer is refused by the name of its type."""
    with pytest.raises(TypeError, match=type(value).__name__):
        Response.of(value)


@pytest.mark.parametrize(
    "response",
    [
        Response(status=199),
        Response(status=600),
        Response(status=True),
        Response(headers={"A": "1\r\nSet-Cookie: x"}),
        Response(headers={"A": ["ok", "\n"]}),
        Response(headers={"A:": "1"}),
        Response(headers={"": "1"}),
        Response(content_type="text/plain\nX: y"),
    ],
)
def test_answer_that_cannot_be_sent_is_refused(response):
    """Statuses out of range, and headers that would write headers of their own, are refused."""
    with pytest.raises(ValueError, match=r"status|header"):
        response.rendered()


def test_answer_that_json_cannot_carry_is_refused():
    """The sentence names the type."""
    with pytest.raises(TypeError, match="'object'"):
        Response({"a": object()}).rendered()
