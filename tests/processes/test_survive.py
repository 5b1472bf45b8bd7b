"""What outlives a kernel: real servers and kernels that are restarted, killed and replaced."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from http.client import HTTPConnection

import pytest

from tests.live import running
from tests.processes.keeper import LIMIT_S, Keeper, received, told

# A crash is noticed after 3 s by default; here it should not be what the tests wait for.
OPTIONS = (
    "--AsyncIOLoopKernelRestarter.time_to_dead=0.3",
    "--AsyncIOLoopKernelRestarter.random_ports_until_alive=False",
    "--AgentsApp.request_timeout_s=5",
)

REVIVES = "AsyncIOLoopKernelRestarter: restarting kernel"


@pytest.fixture(scope="module")
def server(request, tmp_path_factory):
    """One server whose kernels may die."""
    with running(request.config, tmp_path_factory.mktemp("survive"), options=OPTIONS) as server:
        yield server


@pytest.fixture
def keeper(server, tmp_path):
    """The agent in a fresh kernel of that server, served."""
    kernel = server.kernel()
    made = Keeper(kernel, tmp_path / "journal")
    made.serve()
    yield made
    made.kernel.shutdown()


async def restart(keeper):
    """As the menu does."""
    await asyncio.to_thread(keeper.kernel.restart)


async def kill(keeper):
    """As the system does when memory is short; Jupyter starts the kernel anew."""
    pid = await asyncio.to_thread(keeper.kernel.pid)
    await revived(keeper, lambda: os.kill(pid, signal.SIGKILL))


async def revived(keeper, crash):
    """Wait until Jupyter has noticed a crash and is starting the kernel anew."""
    keeper.kernel._forget()
    before = keeper.server.log().count(REVIVES)
    crash()
    await until(lambda: keeper.server.log().count(REVIVES) > before)


async def until(condition):
    """Wait for what nothing announces."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def replace(keeper):
    """As "Change Kernel…" does: another kernel for the same notebook, the old one is shut down."""
    session = f"api/sessions/{keeper.kernel.session_id}"
    keeper.kernel._forget()
    change = {"kernel": {"name": "python3"}}
    model = await asyncio.to_thread(keeper.server.request, "PATCH", session, change)
    keeper.kernel.id = model["kernel"]["id"]


@pytest.mark.parametrize("end", [restart, kill, replace], ids=lambda end: end.__name__)
async def test_clients_outlive_their_kernel(keeper, end):
    """Sockets stay, what is sent waits in order, what was attached is back; `on_connect` is not.

    Our clients are told that the agent is away and back, others see nothing of it.
    """
    async with (
        keeper.client(name="a", secret="s", tag="blue") as a,
        keeper.client(name="b", tag="red", look="1") as b,
        keeper.socket() as raw,
    ):
        await told(a, "open")
        await told(b, "open")
        assert await a.call("add", [3]) == 3
        assert await raw.recv() == '{"type":"cf_agent_state","state":{"n":3}}'
        for client in (a, b, raw):
            sent = client.send("before")
            assert sent is True or await sent is None
            await received(client, "before")
        before = await a.call("about")
        await end(keeper)
        await told(a, "suspended")
        await told(b, "suspended")
        assert a.suspended
        for n in range(20):
            a.send(f"a{n}")
            b.send(f"b{n}".encode())
            await raw.send(f"raw{n}")
        call = a.call("add", [4], timeout=0)
        await keeper.serve_again()
        await told(a, "resumed")
        await told(b, "resumed")
        await received(a, *(f"a{n}" for n in range(20)))
        await received(b, *(f"b{n}".encode() for n in range(20)))
        assert await call == 7
        answers = [f"raw{n}" for n in range(20)]
        answers.append('{"type":"cf_agent_state","state":{"n":7}}')
        assert sorted([await asyncio.wait_for(raw.recv(), LIMIT_S) for _ in answers]) == sorted(
            answers
        )
        assert await a.call("about") == before
        assert [row[1:] for row in before if row[0] != "raw"] == [
            [["a", "blue"], {"secret": "s"}, False],
            [["b", "red"], {"secret": None}, True],
        ]
        assert keeper.notes("start", "connect", "close") == [
            "start 0",
            "connect a",
            "connect b",
            "connect raw",
            "start 3",
        ]
        assert (a.events.qsize(), b.events.qsize(), raw.close_code) == (0, 0, None)


async def test_other_kernel_takes_live_clients_over(keeper):
    """With takeover=True another kernel gets the class: clients, their state, and the state."""
    async with keeper.client(secret="s") as client:
        await client.call("add", [3])
        first, keeper.kernel = keeper.kernel, await asyncio.to_thread(keeper.server.kernel)
        try:
            await keeper.serve_again()
            assert await client.call("add", [4]) == 7
            assert await client.call("about") == [["a", ["a", "x"], {"secret": "s"}, False]]
            assert (await asyncio.to_thread(first.run, "print(room.is_served)")).text == "False\n"
        finally:
            await asyncio.to_thread(first.shutdown)
        assert await client.call("add", [1]) == 8
        assert keeper.notes("connect", "start", "close") == ["start 0", "connect a", "start 3"]
        await told(client, "open")
        assert client.events.empty()


@pytest.mark.parametrize("redelivery", ["at_most_once", "at_least_once"])
@pytest.mark.parametrize("how", ["block", "wait", "die"])
async def test_handler_that_is_cut_off(keeper, redelivery, how):
    """A begun handler runs again only if the class says so; what waited behind it runs once.

    Whether it blocked, awaited, or killed the kernel itself.
    """
    await asyncio.to_thread(keeper.serve, redelivery)
    pid = await asyncio.to_thread(keeper.kernel.pid)
    async with keeper.client() as client:
        client.send("ended")
        await received(client, "ended")
        await keeper.noted("done a ended")

        def crash():
            if how != "die":
                os.kill(pid, signal.SIGKILL)

        for message in (how, "next", "last"):
            client.send(message)
        await keeper.noted(f"message a {how}")
        if how == "wait":  # the agent goes on meanwhile
            await received(client, "next", "last")
            await keeper.noted("done a last")
        await revived(keeper, crash)
        await keeper.serve_again(redelivery)
        again = [how] if redelivery == "at_least_once" else []
        behind = [] if how == "wait" else ["next", "last"]
        await received(client, *again, *behind)
        client.send("after")
        await received(client, "after")
        await keeper.noted("done a after")
        begun = ["ended", how, *(["next", "last"] if how == "wait" else [])]
        assert keeper.notes("message") == [
            f"message a {message}" for message in [*begun, *again, *behind, "after"]
        ]


async def test_message_that_waits_for_a_cut_off_call(keeper):
    """The calls of a dead kernel: one under way is not answered, one behind it is."""
    async with keeper.client() as client:
        pid = await asyncio.to_thread(keeper.kernel.pid)
        lost = client.call("wait", [3600], timeout=0)
        assert await client.call("add", [1]) == 1
        await revived(keeper, lambda: os.kill(pid, signal.SIGKILL))
        waits = client.call("add", [1], timeout=0)
        await keeper.serve_again()
        assert await waits == 2
        assert not lost.done()
        lost.cancel()


async def test_http_waits_for_the_kernel_or_is_told_to(keeper):
    """A request to an agent whose kernel is away is answered later, or 503 with Retry-After.

    One that was under way when the kernel died is answered 503 at once.
    """
    pid = await asyncio.to_thread(keeper.kernel.pid)
    under_way = requested(keeper, "hang")
    await keeper.noted("request /hang")
    await revived(keeper, lambda: os.kill(pid, signal.SIGKILL))
    assert await answered(under_way) == (503, True, None)
    assert await answered(requested(keeper, "late")) == (503, True, None)
    await asyncio.to_thread(keeper.kernel.pid)  # it takes cells again
    waiting = requested(keeper, "waits")
    await keeper.serve_again()
    assert await answered(waiting) == (200, False, {"n": 0})
    assert keeper.notes("request") == ["request /hang", "request /waits"]


def requested(keeper, what):
    """A connection over which a path of the agent was asked for."""
    server = keeper.server
    connection = HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
    path = f"{server.base_url}agents/keeper/{keeper.name}/{what}"
    connection.request("GET", path, headers={"Authorization": f"token {server.token}"})
    return connection


async def answered(connection):
    """The answer's status, whether it says when to come again, and its JSON if it went well."""
    response = await asyncio.to_thread(connection.getresponse)
    body = response.read()
    connection.close()
    is_well = response.status == 200
    return (
        response.status,
        "Retry-After" in response.headers,
        json.loads(body) if is_well else None,
    )
