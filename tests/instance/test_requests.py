"""HTTP to an agent, its gate, and what the server's own view asks for."""

from __future__ import annotations

import asyncio

import pytest

from jupyter_agents import Agent, Request, Response, callable_method
from jupyter_agents.testing import AgentHarness


class Site(Agent):
    answer: object = None

    async def on_request(self, request):
        if request.path == "/echo":
            return {"method": request.method, "query": dict(request.query), "text": request.text}
        if request.path == "/slow":
            await asyncio.Event().wait()
        if request.path == "/fail":
            raise RuntimeError("secret")
        return type(self).answer


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        ({"a": 1}, 200, b'{"a":1}'),
        ([1, 2], 200, b"[1,2]"),
        ("text", 200, b"text"),
        (b"\x00", 200, b"\x00"),
        ((201, "made"), 201, b"made"),
        (Response("no", status=418), 418, b"no"),
        (None, 404, b"Not implemented"),
    ],
    ids=repr,
)
async def test_answers_of_every_kind(answer, status, body):
    """`on_request` may return a Response, dict, list, str, bytes, (status, body), or nothing.

    404.
    """
    Site.answer = answer
    async with AgentHarness(Site) as harness:
        got = await harness.request(Site, "x")
        assert (got.status, got.body) == (status, body)


async def test_request_carries_path_query_method_and_body():
    """T153, T162: sub-path, query, method and body reach the agent."""
    async with AgentHarness(Site) as harness:
        got = await harness.request(
            Site, "x", "/echo", method="POST", body=b"hi", query={"a": "1"}
        )
        assert got.json() == {"method": "POST", "query": {"a": "1"}, "text": "hi"}


async def test_raising_on_request_is_a_500_without_details():
    """WIRE 7: 500 with a fixed body; `on_error` has no connection."""
    errors = []

    class Broken(Site):
        def on_error(self, connection, error):
            errors.append((connection, str(error)))

    async with AgentHarness(Broken) as harness:
        got = await harness.request(Broken, "x", "/fail")
        assert (got.status, got.json()) == (500, {"error": "Internal error"})
        assert errors == [(None, "secret")]


async def test_unusable_answer_is_a_500():
    """A value that cannot answer a request is the author's error."""
    Site.answer = object()
    async with AgentHarness(Site) as harness:
        assert (await harness.request(Site, "x")).status == 500


async def test_abandoned_request_is_cancelled():
    """A request that nobody waits for any more ends."""
    async with AgentHarness(Site) as harness:
        asked = Request(agent="site", name="x", path="/slow").to_dict()
        served = harness.relay.find("site")
        pending = harness.relay.request(served, {"request": asked}, b"", lambda a, b: None, 0)
        await harness.idle()
        assert harness.host.tasks
        harness.relay.abandon(pending)
        await harness.idle()
        assert not harness.host.tasks


class Gated(Agent):
    made = 0

    def __init__(self):
        super().__init__()
        type(self).made += 1

    @classmethod
    def on_before_connect(cls, request):
        if request.query.get("key") == "replace":
            return request.replace(query={"key": "replaced"}, query_all={"key": ("replaced",)})
        if request.query.get("key") != "right":
            return Response({"error": "no"}, status=401)
        return None

    @classmethod
    async def on_before_request(cls, request):
        return Response("stop", status=403) if request.path == "/closed" else None

    def on_request(self, request):
        return "in"


async def test_gate_refuses_before_the_instance_wakes():
    """T156–T158: what the hook answers is what the client gets, and no instance is made."""
    Gated.made = 0
    async with AgentHarness(Gated) as harness:
        got = await harness.request(Gated, "x", gate=True)
        assert (got.status, got.json()) == (401, {"error": "no"})
        closed = await harness.request(Gated, "x", "/closed")
        assert (closed.status, closed.text) == (403, "stop")
        assert Gated.made == 0
        assert (await harness.request(Gated, "x")).text == "in"


async def test_gate_passes_or_replaces():
    """The hook may let the request pass, or put another in its place."""
    async with AgentHarness(Gated) as harness:
        passed = await harness.request(Gated, "x", gate=True, query={"key": "right"})
        assert passed.about["pass"] is True
        replaced = await harness.request(Gated, "x", gate=True, query={"key": "replace"})
        assert replaced.about["request"]["query"] == {"key": ["replaced"]}


async def test_only_classes_with_their_own_hook_are_asked():
    """A class without `on_before_connect` costs no question before the upgrade."""
    async with AgentHarness(Gated, Site) as harness:
        assert harness.relay.find("gated").options["gate"] is True
        assert harness.relay.find("site").options["gate"] is False


async def ask(harness, **question):
    """Put a question as the server's own view does."""
    answered = asyncio.get_running_loop().create_future()
    served = harness.relay.find(question["agent"])
    harness.relay.ask(served, question, lambda about, body: answered.set_result(about), 0)
    return await asyncio.wait_for(answered, 5)


class Described(Agent):
    initial_state = {"n": 1}

    @callable_method
    def add(self, a: int, b: int = 2) -> int:
        """Add two numbers."""
        return a + b

    def on_message(self, connection, message):
        self.set_state({"n": 2})


async def test_server_can_ask_for_a_description():
    """The callables with their parameters, and the kind of state."""
    async with AgentHarness(Described) as harness:
        await harness.connect(Described, "x", connection_id="A")
        answer = await ask(harness, agent="described", name="x", do="describe")
        (add,) = answer["callables"]
        assert add["name"] == "add"
        assert add["description"] == "Add two numbers."
        assert [p["name"] for p in add["parameters"]] == ["a", "b"]
        assert answer["state_kind"] == "free"
        assert [c["id"] for c in answer["connections"]] == ["A"]


async def test_server_can_close_a_connection_and_make_it_readonly():
    """`close` and `readonly` mean every connection that has the id."""
    async with AgentHarness(Described) as harness:
        client = await harness.connect(Described, "x", connection_id="A")
        await ask(harness, agent="described", name="x", do="readonly", id="A")
        await client.set_state({"n": 9})
        assert client.state_errors == ["Connection is readonly"]
        twin = await harness.connect(Described, "x", connection_id="A")
        await ask(harness, agent="described", name="x", do="readonly", id="A", readonly=False)
        await client.set_state({"n": 9})
        assert client.state_errors == ["Connection is readonly"]
        await ask(harness, agent="described", name="x", do="close", id="A", code=4000)
        for one in (client, twin):
            assert (await one.until_closed()).code == 4000
        missing = await ask(harness, agent="described", name="x", do="close", id="A")
        assert missing["status"] == 404


async def test_server_can_reset_and_stop_an_instance():
    """`reset` brings the initial state back; `stop` sends the clients away and lets it sleep."""
    async with AgentHarness(Described) as harness:
        client = await harness.connect(Described, "x")
        await client.send("go")
        await client.until_state({"n": 2})
        await ask(harness, agent="described", name="x", do="reset")
        await client.until_state({"n": 1})
        await ask(harness, agent="described", name="x", do="stop")
        assert (await client.until_closed()).code == 1001
        assert not harness.instance(Described, "x").started


async def test_server_is_told_what_cannot_be_done():
    """An unknown action is 400, an unknown instance 404."""
    async with AgentHarness(Described) as harness:
        await harness.connect(Described, "x")
        assert (await ask(harness, agent="described", name="x", do="dance"))["status"] == 400
        assert (await ask(harness, agent="described", name="y", do="stop"))["status"] == 404
