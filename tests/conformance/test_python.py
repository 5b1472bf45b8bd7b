"""Our Python client plays the scenarios that all clients play, in both dialects of the wire.

The list is `scenarios.json`, where the verbs are described; its other runner is ``run.mjs``.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from jupyter_agents.client.client import AgentClient
from jupyter_agents.client.fetch import agent_fetch
from jupyter_agents.errors import CallAborted
from jupyter_agents.protocol.backoff import ReconnectPolicy

SCENARIOS = json.loads(Path(__file__).with_name("scenarios.json").read_text("utf-8"))["scenarios"]
CASES = [
    pytest.param(dialect, scenario, id=f"{dialect}: {scenario['name']}")
    for dialect in ("extended", "plain")
    for scenario in SCENARIOS
    if scenario.get("only", dialect) == dialect
]
LIMIT_S = 10
HASTY = ReconnectPolicy(min_delay=0.1, max_delay=0.3, min_uptime=0)


def filled(value: Any, words: dict[str, Any]) -> Any:
    """``$name`` and ``$index`` in any text of a step become what they stand for."""
    if isinstance(value, str):
        return words[value] if value in words else value.replace("$name", words["$name"])
    if isinstance(value, list):
        return [filled(one, words) for one in value]
    if isinstance(value, dict):
        return {key: filled(one, words) for key, one in value.items()}
    return value


async def within(awaitable: Any) -> Any:
    """The value, if it comes in time."""
    return await asyncio.wait_for(awaitable, LIMIT_S)


async def eventually(check: Any) -> None:
    """Repeat until it raises no assertion any more."""
    deadline = asyncio.get_running_loop().time() + LIMIT_S
    while True:
        try:
            found = check()
            if asyncio.iscoroutine(found):
                await found
        except AssertionError:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.01)
        else:
            return


class Told:
    """A client, and what it was told."""

    def __init__(self, client: AgentClient) -> None:
        self.client = client
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.opens: asyncio.Queue[None] = asyncio.Queue()
        self.closes: asyncio.Queue[Any] = asyncio.Queue()
        self.updates: list[str] = []
        self.errors: list[str] = []
        self.identity: tuple[str, str] | None = None
        client.on_message(self.messages.put_nowait)
        client.on_open(lambda: self.opens.put_nowait(None))
        client.on_close(self.closes.put_nowait)
        client.on_state_update(lambda state, source: self.updates.append(source))
        client.on_state_update_error(self.errors.append)
        client.on_identity(lambda *who: setattr(self, "identity", who))


class Play:
    """One scenario on an instance of its own; a method for each verb."""

    def __init__(self, place: dict[str, str], dialect: str, scenario: Any, name: str) -> None:
        self.place = place
        self.dialect = dialect
        self.scenario = scenario
        self.name = name
        self.clients: dict[str, Told] = {}

    async def run(self) -> None:
        for step in self.scenario["steps"]:
            verb = next(iter(step))
            letters = step[verb] if isinstance(step[verb], list) else [step[verb]]
            play = getattr(self, f"play_{verb}")
            if verb in ("set", "converged"):
                await play(letters, step)
                continue
            for letter in letters:
                await play(letter, filled(step, {"$name": self.name}))

    async def end(self) -> None:
        for told in self.clients.values():
            told.client.close()
            await told.client.wait_closed()

    def client(self, letter: str) -> AgentClient:
        return self.clients[letter].client

    def wanted(self, value: Any) -> Any:
        """The value for this dialect, where the two differ."""
        is_split = isinstance(value, dict) and value.keys() == {"plain", "extended"}
        return value[self.dialect] if is_split else value

    def address(self, step: Any) -> dict[str, Any]:
        agent, name = step.get("agent", self.scenario["agent"]), step.get("name", self.name)
        return {**self.place, "agent": agent, "name": name}

    async def play_connect(self, letter: str, step: Any) -> None:
        client = AgentClient(
            **self.address(step),
            query=step.get("query"),
            id=step.get("id"),
            extended=self.dialect == "extended",
            reconnect=HASTY,
        )
        told = self.clients[letter] = Told(client)
        client.start()
        until = step.get("until", "ready")
        if until != "created":
            await within(told.opens.get())
        if until == "ready":
            await within(client.ready)

    async def play_send(self, letter: str, step: Any) -> None:
        client = self.client(letter)
        if "json" in step:
            assert client.send_json(step["json"])
        else:
            assert client.send(bytes.fromhex(step["hex"]) if "hex" in step else step["text"])

    async def play_receive(self, letter: str, step: Any) -> None:
        message = await within(self.clients[letter].messages.get())
        if "json" in step:
            assert json.loads(message) == step["json"]
        else:
            assert message == (bytes.fromhex(step["hex"]) if "hex" in step else step["text"])

    async def play_quiet(self, letter: str, step: Any) -> None:
        await within(self.client(letter).call("my_id"))
        assert self.clients[letter].messages.empty()

    async def play_call(self, letter: str, step: Any) -> None:
        if "chunks" not in step:
            await self.outcome(self.client(letter).call(step["method"], step["args"]), step)
            return
        stream, chunks = self.client(letter).stream(step["method"], step["args"]), []

        async def read() -> Any:
            async for chunk in stream:
                chunks.append(chunk)  # noqa: PERF401  # those before an error count, too
            return stream.result

        await self.outcome(read(), step)
        assert chunks == step["chunks"]

    async def play_stub(self, letter: str, step: Any) -> None:
        await self.outcome(getattr(self.client(letter).stub, step["method"])(*step["args"]), step)

    async def outcome(self, call: Any, step: Any) -> None:
        if "error" in step or "errorMatches" in step:
            words = step.get("errorMatches") or f"^{re.escape(step['error'])}$"
            with pytest.raises(Exception, match=words):
                await within(call)
        else:
            expected = None if step.get("nothing") else self.wanted(step["result"])
            assert await within(call) == expected

    async def play_calls(self, letter: str, step: Any) -> None:
        finished = []

        async def one(method: str, args: Any, result: Any) -> None:
            assert await self.client(letter).call(method, args) == result
            finished.append(result)

        await within(asyncio.gather(*(one(*call) for call in step["of"])))
        assert finished == step["finish"]

    async def play_cancel(self, letter: str, step: Any) -> None:
        async with self.client(letter).stream(step["method"]) as stream:
            for _ in range(step["after"]):
                await within(anext(stream))

    async def play_eventually(self, letter: str, step: Any) -> None:
        async def check() -> None:
            assert await within(self.client(letter).call(step["method"])) == step["result"]

        await eventually(check)

    async def play_set(self, letters: list[str], step: Any) -> None:
        writes = []
        for index in range(step.get("times", 1)):
            words = {"$name": self.name, "$index": index}
            for letter in letters:
                writes.append(self.client(letter).set_state(filled(step["state"], words)))  # noqa: PERF401
        for write in writes:
            if "refused" in step and self.dialect == "extended":
                with pytest.raises(Exception, match=f"^{re.escape(step['refused'])}$"):
                    await within(write)
            else:
                await within(write)

    async def play_state(self, letter: str, step: Any) -> None:
        wanted = None if step["is"] == "undefined" else step["is"]

        def check() -> None:
            assert self.client(letter).state == wanted

        await eventually(check)

    async def play_converged(self, letters: list[str], step: Any) -> None:
        async def check() -> None:
            held = await within(self.client(letters[0]).call(step["method"]))
            assert [self.client(letter).state for letter in letters] == [held] * len(letters)

        await eventually(check)

    async def play_updates(self, letter: str, step: Any) -> None:
        def check() -> None:
            assert self.clients[letter].updates == step["are"]

        await eventually(check)

    async def play_stateError(self, letter: str, step: Any) -> None:
        def check() -> None:
            assert self.clients[letter].errors == self.wanted(step["are"])

        await eventually(check)

    async def play_identity(self, letter: str, step: Any) -> None:
        client = self.client(letter)
        assert self.clients[letter].identity == (step["name"], step["agent"])
        assert client.identified
        assert client.identity is not None
        assert (client.identity.name, client.identity.agent) == (step["name"], step["agent"])

    async def play_notReady(self, letter: str, step: Any) -> None:
        # This client takes anything else than an identity as a sign that none will come: it is
        # ready then, but never identified.
        assert not self.client(letter).identified

    async def play_closed(self, letter: str, step: Any) -> None:
        closed = await within(self.clients[letter].closes.get())
        assert (closed.code, closed.reason) == (step["code"], step["reason"])
        error = self.client(letter).connection_error
        assert (None if error is None else error.code) == (step["code"] if step["final"] else None)

    async def play_reconnected(self, letter: str, step: Any) -> None:
        told = self.clients[letter]
        if told.client.ready_state != "open":
            await within(told.opens.get())
        await within(told.client.ready)
        assert told.client.identified

    async def play_reconnect(self, letter: str, step: Any) -> None:
        self.client(letter).reconnect()

    async def play_closing(self, letter: str, step: Any) -> None:
        call = self.client(letter).call(step["method"], step["args"])
        self.client(letter).close(step["code"], step["reason"])
        with pytest.raises(CallAborted, match=step["error"]):
            await within(call)
        closed = await within(self.clients[letter].closes.get())
        assert (closed.code, closed.reason) == (step["code"], step["reason"])

    async def play_fetch(self, letter: str, step: Any) -> None:
        answer = await agent_fetch(
            **self.address({}), path=step["path"], method=step["method"], body=step.get("body")
        )
        assert answer.status == step["status"]
        assert {key: answer.json()[key] for key in step["json"]} == step["json"]


@pytest.mark.parametrize(("dialect", "scenario"), CASES)
async def test_python_client_plays(
    dialect: str, scenario: Any, served_agents: dict[str, str]
) -> None:
    """What every client has to see, whoever wrote it, our Python client sees."""
    place = {
        "host": served_agents["AGENT_HOST"],
        "prefix": served_agents["AGENT_PREFIX"],
        "token": served_agents["AGENT_TOKEN"],
    }
    play = Play(place, dialect, scenario, f"python-{dialect}-{SCENARIOS.index(scenario)}")
    try:
        await play.run()
    finally:
        await play.end()
