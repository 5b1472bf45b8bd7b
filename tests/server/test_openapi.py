"""docs/openapi.yaml says what the handlers do, no more and no less."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker
from tornado.web import RequestHandler

from jupyter_agents.link.frames import Kind
from tests.server.fake_host import LIMIT_S
from tests.server.jupyter import *  # noqa: F403
from tests.server.jupyter import TOKEN
from tests.sources import ROOT

RIGHT = {"Authorization": f"token {TOKEN}"}
VIEW = "api/agents/chat-room/lobby"
METHODS = tuple(method.lower() for method in RequestHandler.SUPPORTED_METHODS)


@pytest.fixture(scope="module")
def spec():
    """The file."""
    return yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text("utf-8"))


def check(spec, schema, instance):
    """An instance obeys one of the file's schemas."""
    document = {**spec, "$ref": f"#/components/schemas/{schema}"}
    Draft202012Validator(document, format_checker=FormatChecker()).validate(instance)


def own_methods(handler):
    """What a handler of ours answers itself; Jupyter's and Tornado's own methods aside."""
    ours = [c for c in handler.__mro__ if c.__module__.startswith("jupyter_agents.")]
    return {method for method in METHODS if any(method in vars(c) for c in ours)}


def documented(spec):
    """Path → methods."""
    return {path: set(item) & set(METHODS) for path, item in spec["paths"].items()}


def reached(path, routes):
    """The index of the first route that a path leads to; None where there is none."""
    url = re.sub(r"\{\w+\}", "x", path)
    found = (i for i, route in enumerate(routes) if re.fullmatch(route[0], url))
    return next(found, None)


async def test_every_documented_operation_is_handled(agents, spec):
    """Each path leads to a handler that has exactly the documented methods."""
    for path, methods in documented(spec).items():
        index = reached(path, agents.handlers)
        assert index is not None, path
        assert methods == own_methods(agents.handlers[index][1]), path


async def test_every_handler_is_documented(agents, spec):
    """Each route that the extension registers is reached by a documented path."""
    paths = {reached(path, agents.handlers) for path in spec["paths"]}
    missing = [route[0] for i, route in enumerate(agents.handlers) if i not in paths]
    assert not missing
    assert len(agents.handlers) == 10


def leaves(router):
    """The rules of a router and of the routers in it that lead to a handler."""
    for rule in router.rules:
        if hasattr(rule.target, "rules"):
            yield from leaves(rule.target)
        else:
            yield rule


async def test_routes_are_the_servers(agents, jp_serverapp):
    """The server's own router has these routes of ours, below its base_url, and no others."""
    ours = {
        (rule.matcher.regex.pattern, rule.target)
        for rule in leaves(jp_serverapp.web_app.default_router)
        if rule.target.__module__.startswith("jupyter_agents.")
    }
    base = jp_serverapp.base_url.rstrip("/")
    assert ours == {(f"{base}{route[0]}$", route[1]) for route in agents.handlers}


def test_own_methods_tell_ours_from_inherited():
    """A method that only Jupyter or Tornado has is not ours."""
    ours = type("Ours", (RequestHandler,), {"get": None, "__module__": "jupyter_agents.x"})
    assert own_methods(ours) == {"get"}
    assert own_methods(RequestHandler) == set()


def nodes(value):
    """Every node of the file."""
    yield value
    inner = value.values() if isinstance(value, dict) else ()
    for item in value if isinstance(value, list) else inner:
        yield from nodes(item)


def resolve(spec, pointer):
    """What a local reference points to; KeyError otherwise."""
    node = spec
    for word in pointer.removeprefix("#/").split("/"):
        node = node[word]
    return node


def test_references_lead_somewhere(spec):
    """No ``$ref`` dangles, and nothing is described that nothing refers to."""
    targets = {node["$ref"] for node in nodes(spec) if isinstance(node, dict) and "$ref" in node}
    for target in targets:
        assert resolve(spec, target)
    kinds = ("schemas", "responses", "parameters", "requestBodies")
    there = {f"#/components/{k}/{name}" for k in kinds for name in spec["components"][k]}
    assert targets == there


def test_path_parameters_are_declared(spec):
    """Each placeholder of a path is a required path parameter, and no other is."""
    for path, item in spec["paths"].items():
        given = [
            resolve(spec, p["$ref"]) if "$ref" in p else p for p in item.get("parameters", [])
        ]
        assert [p["name"] for p in given] == re.findall(r"\{(\w+)\}", path)
        assert all(p["in"] == "path" and p["required"] for p in given)


def test_operations_are_whole(spec):
    """Each operation has a summary and responses; ids are unique, schemas are schemas."""
    operations = [
        item[method] for item in spec["paths"].values() for method in METHODS if method in item
    ]
    assert all(o["summary"] and o["responses"] and o["tags"] for o in operations)
    ids = [o["operationId"] for o in operations if "operationId" in o]
    assert len(ids) == len(set(ids))
    for schema in spec["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


# -- real answers ------------------------------------------------------------------------------


async def test_real_answers_obey(visitor, spec):
    """What the server answers about a living agent is what the file promises."""
    async with visitor.host() as host:
        events = await visitor.ws("api/agents/events", RIGHT)
        frame = await asyncio.wait_for(events.read_message(), LIMIT_S)
        check(spec, "Snapshot", json.loads(frame))
        await visitor.ws("agents/chat-room/lobby?_pk=me", RIGHT)
        await host.expect_open()
        host.say(Kind.INSTANCE, {"agent": "chat-room", "name": "lobby", "state": "awake"})
        frame = await asyncio.wait_for(events.read_message(), LIMIT_S)
        check(spec, "Changes", json.loads(frame))
        view = await visitor.http("api/agents", headers=RIGHT)
        assert json.loads(view.body)["hosts"][0]["agents"]
        check(spec, "View", json.loads(view.body))
        asking = asyncio.ensure_future(visitor.http(VIEW, headers=RIGHT))
        asked, _ = await host.expect(Kind.ASK)
        facts = {"callables": [{"name": "add"}], "state_kind": "free", "fields": []}
        host.say(Kind.ANSWER, {**facts, "started": True}, asked)
        instance = json.loads((await asking).body)
        assert len(instance["connections"]) == 1
        check(spec, "Instance", instance)
        closed = await visitor.http(f"{VIEW}/close", "POST", b'{"id": "me"}', RIGHT)
        check(spec, "Closed", json.loads(closed.body))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "schema"),
    [
        ("GET", "api/agents/nobody/x", None, 404, "Error"),
        ("POST", f"{VIEW}/close", b"{}", 400, "Error"),
        ("POST", f"{VIEW}/close", b'{"id": "x"}', 404, "Error"),
        ("POST", f"{VIEW}/readonly", b"{}", 400, "Error"),
        ("GET", "agents/nobody/x", None, 404, "Refusal"),
    ],
)
async def test_refusals_obey(visitor, spec, method, path, body, status, schema):
    """Refusals have the documented form, and a status that the operation names."""
    async with visitor.host():
        answer = await visitor.http(path, method, body, RIGHT)
        assert answer.code == status
        check(spec, schema, json.loads(answer.body))


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ("View", {"hosts": [{}]}),
        ("Closed", {"closed": 0}),
        ("Snapshot", {"type": "changes", "hosts": []}),
    ],
)
def test_schemas_refuse(spec, schema, wrong):
    """The schemas are not so loose that anything obeys them."""
    document = {**spec, "$ref": f"#/components/schemas/{schema}"}
    assert not Draft202012Validator(document).is_valid(wrong)
