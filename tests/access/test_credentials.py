"""What a client asked, without what it signed in with: tables of what goes and what stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from jupyter_agents.access.credentials import (
    Secrets,
    hide_passes,
    hide_secrets,
    is_jupyter_cookie,
    presented_tokens,
    read_request,
    request_summary,
    same_text,
)
from jupyter_agents.protocol.names import Address

TOKEN = "0123456789abcdef"
SECRETS = Secrets((TOKEN, "", "short"), ("my-login",))


def asked(uri: str = "/a", **headers: str) -> HTTPServerRequest:
    """A request as Tornado makes it."""
    named = HTTPHeaders({"Host": "h:1", **{k.replace("_", "-"): v for k, v in headers.items()}})

    class Context:
        remote_ip, protocol = "10.0.0.1", "https"

    class Connection:
        context = Context()

    line = RequestStartLine("GET", uri, "HTTP/1.1")
    return HTTPServerRequest(start_line=line, headers=named, connection=Connection())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ""),
        ("a=1&b=2", "a=1&b=2"),
        (f"token={TOKEN}", ""),
        (f"a=1&token={TOKEN}&b=2", "a=1&b=2"),
        (f"token={TOKEN}&token=mine", "token=mine"),
        ("token=mine", "token=mine"),
        ("token=short", ""),
        ("word=shortbread", "word=shortbread"),
        (f"key={TOKEN}", ""),
        (f"next=%2Flab%3Ftoken%3D{TOKEN}", ""),
        (f"x={TOKEN}y", ""),
        ("token=0123456789%61bcdef", ""),
        ("_xsrf=2%7Cword", ""),
        ("%5Fxsrf=word", ""),
        ("a=%20+%C3%A9&&b", "a=%20+%C3%A9&&b"),
        ("t%6Fken=0123456789abcdef", ""),
    ],
)
def test_query_loses_credentials_only(given, kept):
    """Pieces with a credential go, however they are encoded; others keep their spelling."""
    assert SECRETS.query(given) == kept


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ("a=1", "a=1"),
        ("a=1; _xsrf=2; b=3", "a=1; b=3"),
        ("username-localhost-8888=me", ""),
        ("username-other-host-9999=me; a=1", "a=1"),
        ("jupyterhub-session-id=x; jupyterhub-user-ann=y; jupyter=z", "jupyter=z"),
        ("my-login=me;a=1", "a=1"),
        (" ; ;a=1;", "a=1"),
        ("username=mine; xsrf=mine", "username=mine; xsrf=mine"),
    ],
)
def test_cookies_of_jupyter_go(header, kept):
    """Login and XSRF cookies of any Jupyter on this host go, an application's own stay."""
    assert SECRETS.cookies(header) == kept


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("Authorization", f"token {TOKEN}", None),
        ("Authorization", f"Bearer {TOKEN}", None),
        ("Authorization", f"bearer   {TOKEN} ", None),
        ("Authorization", "Bearer mine", "Bearer mine"),
        ("Authorization", "Basic bWU6eA==", "Basic bWU6eA=="),
        ("Authorization", f"Basic {TOKEN}", None),
        ("X-XSRFToken", "word", None),
        ("X-Csrftoken", "word", None),
        ("Cookie", "_xsrf=1", None),
        ("Cookie", "_xsrf=1; a=2", "a=2"),
        ("Referer", f"http://h/lab?token={TOKEN}&reset", "http://h/lab?reset"),
        ("Referer", f"http://{TOKEN}@h/lab#x", "http://h/lab"),
        ("Referer", f"http://h/{TOKEN}/lab", None),
        ("Referer", "http://[h/lab", ""),
        ("X-Original-Uri", f"/a?token={TOKEN}", None),
        ("X-Word", "shortbread", "shortbread"),
        ("X-Mine", "a, b", "a, b"),
    ],
)
def test_headers_lose_credentials_only(name, value, kept):
    """A header that carries a credential is cleaned where that can be done, else left out."""
    request = asked(**{name.replace("-", "_"): value})
    found = dict(SECRETS.headers(request))
    assert found.get(name) == kept


def test_encoded_token_is_found():
    """A token with characters that URLs encode is found in its encoded form, too."""
    secrets = Secrets(("pass word/ü!",))
    assert secrets.query("token=pass%20word%2F%C3%BC%21&a=1") == "a=1"
    assert secrets.query("token=pass+word/%C3%BC!&a=1") == "a=1"
    headers = dict(secrets.headers(asked(X_Uri="/a?t=pass%20word%2F%C3%BC%21")))
    assert "X-Uri" not in headers


def test_without_secrets_everything_stays():
    """On a server without a token nothing looks like one."""
    secrets = Secrets(("",))
    assert secrets.query("token=&token=abc") == "token=&token=abc"
    assert not secrets.has("")
    assert dict(secrets.headers(asked(Authorization="Bearer x")))["Authorization"] == "Bearer x"


@given(st.lists(st.tuples(st.text("abc=%&+ é", max_size=5), st.text("tk0=%&+;", max_size=5))))
def test_query_never_shows_the_token(pairs):
    """Whatever surrounds it, the token is not in what is left, and the rest is what it was."""
    rest = "&".join(f"{a}={b}" for a, b in pairs)
    kept = SECRETS.query(f"{rest}&token={TOKEN}")
    assert TOKEN not in kept
    assert kept == SECRETS.query(rest) or not rest


@pytest.mark.parametrize(
    ("uri", "headers", "found"),
    [
        ("/a", {}, ()),
        ("/a?token=", {}, ()),
        ("/a?token=x&token=y", {}, ("x", "y")),
        ("/a", {"Authorization": "Token  x y "}, ("x y",)),
        ("/a?token=x", {"Authorization": "bearer y"}, ("x", "y")),
        ("/a?tokens=x", {"Authorization": "Basic y"}, ()),
    ],
)
def test_presented_tokens(uri, headers, found):
    """Query values named token and the Authorization header's, and nothing else."""
    assert presented_tokens(asked(uri, **headers)) == found


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("_xsrf", True),
        ("username-x", True),
        ("jupyterhub-x", True),
        ("username", False),
        ("x", False),
    ],
)
def test_jupyter_cookie(name, is_ours):
    """Jupyter's cookies are known by their names."""
    assert is_jupyter_cookie(name) is is_ours
    assert is_jupyter_cookie(name, [name])


def test_same_text_takes_any_text():
    """Text that is not ASCII, or not even Unicode, compares without an error."""
    assert same_text("ü\ud800", "ü\ud800")
    assert not same_text("ü", "u")
    assert not same_text("", "u")


def test_request_is_read_whole():
    """The request keeps its order, repeated values and encoding, and has lost its credentials."""
    request = asked(
        f"/p/agents/a/b%20c/t?x=1&x=2&e=&token={TOKEN}&u=%C3%A9",
        Cookie="_xsrf=1; mine=2",
        Accept="a/b",
    )
    got = read_request(request, SECRETS, Address("a", "b c"), "/t", {"username": "ann"})
    assert got.method == "GET"
    assert got.url == "https://h:1/p/agents/a/b%20c/t?x=1&x=2&e=&u=%C3%A9"
    assert got.path == "/t"
    assert got.query_all == {"x": ("1", "2"), "e": ("",), "u": ("é",)}
    assert got.query["x"] == "1"
    assert got.cookies == {"mine": "2"}
    assert dict(got.headers) == {"Host": "h:1", "Cookie": "mine=2", "Accept": "a/b"}
    assert (got.agent, got.name, got.remote_ip) == ("a", "b c", "10.0.0.1")
    assert got.user == {"username": "ann"}
    assert got.body == b""


def test_query_that_is_not_utf8():
    """Bytes that are no text arrive as U+FFFD, not as an error."""
    got = read_request(asked("/a?x=%ff"), SECRETS, Address("a", "b"), "", None)
    assert got.query == {"x": "\ufffd"}


def test_summary_has_no_query():
    """A log line names the path and who asked."""
    assert request_summary(asked("/a/b?token=x")) == "GET /a/b (10.0.0.1)"


LINK = f"jas.0a1b2c3d.{'A' * 40}.{'b' * 43}"
TICKET = f"jat.{'c' * 43}"


@pytest.mark.parametrize(
    ("uri", "hidden"),
    [
        (f"/a/b?share={LINK}&x=1", "/a/b?share=[secret]&x=1"),
        (f"/a/b?x=1&ticket={TICKET}", "/a/b?x=1&ticket=[secret]"),
        (f"/a/b?any={LINK.replace('.', '%2e')}", "/a/b?any=[secret]"),
        (f"/a/b?any=j%61s{LINK[3:]}", "/a/b?any=[secret]"),
        (f"/a/{LINK}/b?x=1", "/a/[secret]/b?x=1"),
        ("/a/b?share=mine&ticket=7", "/a/b?share=mine&ticket=7"),
        ("/a/b", "/a/b"),
        ("", ""),
    ],
)
def test_links_and_tickets_are_hidden_in_addresses(uri, hidden):
    """Wherever and however encoded they stand; what is not of their form stays."""
    assert hide_passes(uri) == hidden


@pytest.mark.parametrize(
    ("uri", "hidden"),
    [
        ("/a?token=x&y=1", "/a?token=[secret]&y=1"),
        ("/a?t%6fken=x", "/a?t%6fken=[secret]"),
        ("/a?_xsrf=x", "/a?_xsrf=[secret]"),
        (f"/a?share={LINK}", "/a?share=[secret]"),
        ("/a?x=1", "/a?x=1"),
        ("/a", "/a"),
    ],
)
def test_jupyters_own_credentials_are_hidden_in_addresses(uri, hidden):
    """In the server's own view, ``token`` is always Jupyter's."""
    assert hide_secrets(uri) == hidden


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("Authorization", f"Bearer {LINK}", None),
        ("Referer", f"http://h/agents/a/b?share={LINK}&x=1", "http://h/agents/a/b?x=1"),
        ("X-Original-Uri", f"/a?share={LINK}", None),
        ("Referer", "https://jas.example.com/ninjas.html", "https://jas.example.com/ninjas.html"),
        ("Cookie", f"jupyter-agents-share={LINK}; mine=1", "mine=1"),
    ],
)
def test_links_never_reach_an_agent(name, value, kept):
    """A link or ticket is taken out of a request whether it is good or not."""
    request = asked(**{name.replace("-", "_"): value})
    found = dict(Secrets().headers(request))
    assert found.get(name) == kept


def test_links_leave_the_query():
    """Under whatever name, encoded or not."""
    assert Secrets().query(f"a=1&share={LINK}&u=%2Fx%3Fshare%3D{LINK}&b=2") == "a=1&b=2"
