"""Links to an agent of a real kernel, behind a real server: who is in, and for how long."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

LIMIT_S = 20.0

CELL = """
from jupyter_agents import Agent, callable_method, get_current_agent, serve

class ChatRoom(Agent):
    access = "link"
    initial_state = 0

    @callable_method
    def whoami(self):
        connection = get_current_agent().connection
        return {"user": dict(connection.user), "uri": connection.uri}

    @callable_method
    def add(self, n: int):
        self.set_state(self.state + n)

    def on_request(self, request):
        return {"kind": request.user.get("kind"), "url": request.url}

ns = serve(ChatRoom, storage="memory")
"""


@pytest.fixture
def server(start_server):
    """A server of this test's own."""
    return start_server(base_url="/user/x/")


@pytest.fixture
def kernel(server):
    """A kernel whose cell serves ChatRoom."""
    kernel = server.kernel()
    kernel.run(CELL)
    yield kernel
    kernel.shutdown()


def evaluate(kernel, expression):
    """The value of an expression in the kernel, by way of JSON."""
    return json.loads(kernel.run(f"import json; print(json.dumps({expression}))").text)


def share(kernel, expression="ns.share('lobby')"):
    """Make a link in a cell; its id and its address."""
    return evaluate(kernel, f"(lambda s: [s.id, s.url])({expression})")


def enter(url, **options):
    """A client with nothing but this address."""
    return connect("ws" + url.removeprefix("http"), proxy=None, **options)


def refused(url, **options):
    """The status with which somebody is kept out."""
    with pytest.raises(InvalidStatus) as no, enter(url, **options):
        pass
    return no.value.response.status_code


def call(client, method, *args):
    """The reply to a call, past everything else that comes."""
    client.send(json.dumps({"type": "rpc", "id": "1", "method": method, "args": args}))
    while (frame := json.loads(client.recv(LIMIT_S))).get("type") != "rpc":
        pass
    return frame


def ended(client):
    """How the connection was closed."""
    try:
        while True:
            client.recv(LIMIT_S)
    except ConnectionClosed as end:
        return end.rcvd.code, end.rcvd.reason


@pytest.mark.processes
def test_a_guest_is_in_and_the_token_stays_out(server, kernel):
    """The link lets in one without a token; the agent sees neither it nor the server's token."""
    link_id, url = share(kernel, "ns.share('lobby', label='Ann')")
    secret = urlsplit(url).query.partition("=")[2]
    assert server.token not in url
    with enter(url) as client:
        me = call(client, "whoami")["result"]
        assert (me["user"]["kind"], me["user"]["share"]) == ("share", link_id)
        assert me["user"]["display_name"] == "Ann"
        assert secret not in json.dumps(me)
        assert call(client, "add", 2)["success"]
    plain = {"Accept": "application/json"}
    path = f"agents/chat-room/lobby?share={secret}"
    status, body = server.fetch("GET", path, headers=plain)
    assert (status, json.loads(body)["kind"]) == (200, "share")
    assert secret.encode() not in body


@pytest.mark.processes
def test_a_link_opens_nothing_else(server, kernel):
    """Not Jupyter, not not our REST API, not another instance, not the bare URL."""
    _, url = share(kernel)
    secret = urlsplit(url).query.partition("=")[2]
    by_query, by_header = {"X-Nothing": "1"}, {"Authorization": f"Bearer {secret}"}
    by_cookie = {"Cookie": f"jupyter-agents-share={secret}"}
    for path in (
        "api/contents", "api/kernels", "api/sessions", "api/status",
        "api/agents", "api/agents/chat-room/lobby", "agents/chat-room/office",
        "agents/other/lobby", "metrics",
    ):  # fmt: skip
        for query, headers in ((f"?share={secret}", by_query), ("", by_header), ("", by_cookie)):
            assert server.fetch("GET", path + query, headers=headers)[0] == 403, (path, headers)
            assert server.fetch("GET", f"{path}?token={secret}", headers=by_query)[0] == 403
    assert refused(url.partition("?")[0]) == 403


@pytest.mark.processes
def test_revocation_and_limits_hold(server, kernel):
    """A link that is used up, revoked or read-only says so, and a revoked guest is sent away."""
    link_id, url = share(kernel, "ns.share('lobby', max_connections=1)")
    _, looking = share(kernel, "ns['lobby'].share('10m', readonly=True)")
    with enter(url) as client, enter(looking) as reader:
        assert call(client, "add", 3)["success"]
        assert refused(url) == 429
        reply = call(reader, "add", 1)
        assert (reply["success"], reply["error"]) == (False, "Connection is readonly")
        assert evaluate(kernel, "[s.connections for s in ns.shares('lobby')]") == [1, 1]
        kernel.run(f"[s.revoke() for s in ns.shares() if s.id == {link_id!r}]")
        assert ended(client) == (4001, "This link was revoked")
        assert call(reader, "whoami")["success"]
    assert refused(url) == 403
    assert evaluate(kernel, "ns['lobby'].state") == 3


@pytest.mark.processes
def test_a_link_ends_with_its_time(server, kernel):
    """A guest whose link expires is sent away without anybody's doing, and does not come back."""
    _, url = share(kernel, "ns.share('lobby', expires='3s')")
    with enter(url) as client:
        call(client, "whoami")
        assert ended(client) == (4001, "This link has expired")
    assert refused(url) == 403


@pytest.mark.processes
def test_links_live_on(server, kernel):
    """Guests stay while the kernel restarts; their link opens its door again afterwards."""
    link_id, url = share(kernel)
    with enter(url) as client:
        call(client, "add", 1)
        kernel.restart()
        kernel.run(CELL)
        assert call(client, "whoami")["result"]["user"]["share"] == link_id
        with enter(url) as second:
            assert call(second, "whoami")["success"]
        assert evaluate(kernel, "[s.id for s in ns.shares()]") == [link_id]


@pytest.mark.processes
def test_a_revocation_outlives_the_server(start_server, tmp_path):
    """The next server of this user knows old links by its key, and which of them are revoked."""
    data = {"JUPYTER_DATA_DIR": str(tmp_path / "shared-data")}
    first = start_server(env=data)
    kernel = first.kernel()
    kernel.run(CELL)
    (good_id, good), (gone_id, gone) = share(kernel), share(kernel)
    kernel.run(f"[s.revoke() for s in ns.shares() if s.id == {gone_id!r}]")
    kernel.shutdown()
    first.stop()
    second = start_server(env=data)
    kernel = second.kernel()
    kernel.run(CELL)
    where = f"{second.url}agents/chat-room/lobby?"
    with enter(where + urlsplit(good).query) as client:
        assert call(client, "whoami")["result"]["user"]["share"] == good_id
    assert refused(where + urlsplit(gone).query) == 403
    kernel.shutdown()


@pytest.mark.processes
def test_a_foreign_page_comes_by_ticket(server, kernel):
    """A page of another origin trades the link, or the token, for a ticket that is good once."""
    _, url = share(kernel)
    origin = "https://school.example"
    room, secret = url.partition("?")[0], urlsplit(url).query.partition("=")[2]
    assert refused(url, origin=origin) == 403
    for credential in (secret, server.token):
        headers = {"Authorization": f"Bearer {credential}", "Origin": origin}
        path = "api/agents/chat-room/lobby/ticket"
        status, body = server.fetch("POST", path, headers=headers)
        assert status == 200
        ticket = json.loads(body)["ticket"]
        with enter(f"{room}?ticket={ticket}", origin=origin) as client:
            assert call(client, "whoami")["success"]
        assert refused(f"{room}?ticket={ticket}", origin=origin) == 403


@pytest.mark.processes
def test_nothing_of_it_is_in_the_log(start_server):
    """The server's log, at its most talkative, has no link, no ticket and no token."""
    server = start_server(options=["--debug"])
    kernel = server.kernel()
    kernel.run(CELL)
    _, url = share(kernel)
    secret = urlsplit(url).query.partition("=")[2]
    with enter(url) as client:
        call(client, "whoami")
    headers = {"Authorization": f"Bearer {secret}"}
    status, body = server.fetch("POST", "api/agents/chat-room/lobby/ticket", headers=headers)
    assert status == 200
    ticket = json.loads(body)["ticket"]
    for path in ("agents/chat-room/office", "api/agents", "lab", "nowhere", "agents/x/y"):
        for query in (f"share={secret}", f"ticket={ticket}"):
            server.fetch("GET", f"{path}?{query}", headers={"X-Nothing": "1"})
            if "agents" in path:  # what Jupyter's own URLs log of a refused POST is Jupyter's
                server.fetch("POST", f"{path}?{query}", headers={"X-Nothing": "1"})
    kernel.shutdown()
    log = server.log()
    assert "agents/chat-room/office" in log
    assert "share=[secret]" in log
    for word in (secret, secret.split(".")[2], ticket):
        assert word not in log


@pytest.mark.processes
def test_public_takes_the_administrators_consent(start_server):
    """Without it the cell fails and says why; with it everyone may talk to that class only."""
    public = CELL.replace('access = "link"', 'access = "public"')
    closed = start_server()
    kernel = closed.kernel()
    failed = kernel.run(public, check=False)
    assert "allow_public" in failed.error
    kernel.shutdown()
    server = start_server(options=["--AgentsApp.allow_public=True"])
    kernel = server.kernel()
    kernel.run(public)
    with enter(f"{server.url}agents/chat-room/lobby", origin="https://any.example") as client:
        assert call(client, "whoami")["result"]["user"]["kind"] == "public"
    assert server.fetch("GET", "api/agents", headers={"X-Nothing": "1"})[0] == 403
    kernel.shutdown()
