"""What outlives a kernel: real servers and kernels that are restarted, killed and replaced."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from http.client import HTTPConnection

import pytest
from websockets.exceptions import ConnectionClosed

from tests.live import running
from tests.processes.keeper import LIMIT_S, Keeper, received, told, until
from tests.processes.outside import OPTIONS as OUTSIDE_OPTIONS
from tests.processes.outside import outside_kernel

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


async def test_interrupt_of_a_cell_leaves_agents_alone(keeper):
    """KeyboardInterrupt in a cell: what agents had under way ends as if nothing had been."""
    async with keeper.client() as client:
        under_way = client.call("wait", [1])
        cell = await asyncio.to_thread(keeper.kernel.begin, "note('cell')\ntime.sleep(60)")
        await keeper.noted("cell")
        assert await client.call("add", [1]) == 1
        await asyncio.to_thread(keeper.kernel.interrupt)
        ended = await asyncio.to_thread(keeper.kernel.wait, cell, check=False)
        assert ended.error.startswith("KeyboardInterrupt")
        assert await under_way == "waited"
        client.send("after")
        await received(client, "after")
        assert keeper.notes("start", "stop") == ["start 0"]


@pytest.mark.parametrize("end", [restart, kill], ids=lambda end: end.__name__)
async def test_class_that_serves_itself_again(keeper, end):
    """With autostart=True nobody runs a cell: clients and their messages find the agent again."""
    await asyncio.to_thread(keeper.serve, more=", autostart=True")
    async with keeper.client(secret="s") as client:
        await told(client, "open")
        assert await client.call("add", [3]) == 3
        for count in (4, 5):  # it is told its source anew each time
            await end(keeper)
            waits = client.call("add", [1], timeout=0)
            await told(client, "suspended", "resumed")
            assert await waits == count
        assert await client.call("about") == [["a", ["a", "x"], {"secret": "s"}, False]]
    assert keeper.notes("connect", "start") == ["start 0", "connect a", "start 3", "start 4"]
    # it counts as nobody's cell: the first one of a person is number 1
    counted = await asyncio.to_thread(keeper.kernel.run, "print(len(In) - 1)")
    assert counted.text == "1\n"


async def test_autostart_that_lacks_a_name_says_so(keeper):
    """Only the cell that serves is run again; what it lacks is in the log, and clients wait."""
    await asyncio.to_thread(keeper.kernel.run, "from jupyter_agents import Agent, serve\nx = 1")
    cell = "class Needy(Agent):\n    n = x\n\nserve(Needy, takeover=True, autostart=True)"
    await asyncio.to_thread(keeper.kernel.run, cell)
    await restart(keeper)
    said = (
        "failed, its clients go on waiting: NameError: name 'Agent' is not defined; only the cell"
    )
    await until(lambda: said in keeper.server.log())
    await asyncio.to_thread(
        keeper.kernel.run, "from jupyter_agents import Agent, serve\nx = 1\n" + cell
    )


ENDINGS = """
class Stopping(Keeper):
    async def on_stop(self):
        note("stopping", self.name)
        await asyncio.sleep(3600 if self.name == "hangs" else 0.05)
        note("stopped", self.name)

stopping = serve(Stopping, takeover=True)
for name in ("hangs", "ends"):
    stopping[name].spoken()
"""


async def test_restart_lets_on_stop_end(keeper):
    """A kernel that is restarted from the menu runs `on_stop` first; one that hangs is left."""
    await asyncio.to_thread(keeper.kernel.run, ENDINGS)
    await restart(keeper)
    assert keeper.notes("stopping", "stopped") == [
        "stopping hangs",
        "stopping ends",
        "stopped ends",
    ]


async def test_two_hundred_runs_of_the_cell_leak_nothing(keeper):
    """The cell again and again under a live client: one class, one instance, no more memory."""
    runs = f"""
import gc, resource
source = {keeper.cell()!r}

def again(times):
    for _ in range(times):
        get_ipython().run_cell(source)
    gc.collect()

def found(what):
    return sum(1 for one in gc.get_objects() if what(one))

def kilobytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024
"""
    async with keeper.client() as client:
        await asyncio.to_thread(keeper.kernel.run, runs + "again(50); before = kilobytes()")
        await asyncio.to_thread(keeper.kernel.run, "again(150)", 120)
        assert await client.call("add", [1]) == 1
        classes = "found(lambda one: isinstance(one, type) and one.__name__ == 'Keeper')"
        agents = "found(lambda one: type(one).__name__ == 'Keeper')"
        shown = await asyncio.to_thread(
            keeper.kernel.run, f"print({classes}, {agents}, kilobytes() - before)"
        )
        classes, agents, grown = map(int, shown.text.split())
        assert (classes <= 2, agents) == (True, 1), shown.text
        assert grown < 4096, shown.text
        assert keeper.notes("start", "connect") == ["start 0", "connect a"]


@pytest.fixture
def outside(request, tmp_path_factory, tmp_path):
    """The agent in a kernel that the server uses but did not start."""
    home = tmp_path_factory.mktemp("o")  # short, so that the link's socket fits in its folder
    with (
        running(request.config, home, options=OUTSIDE_OPTIONS) as server,
        outside_kernel(server) as kernel,
    ):
        made = Keeper(kernel, tmp_path / "journal")
        made.serve()
        yield made


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_server_restarts_and_its_kernel_lives_on(outside, end):
    """The kernel finds the new server, our clients come back to what it still remembers."""
    async with outside.client(secret="s") as client, outside.socket() as raw:
        await client.call("add", [3])
        await raw.recv()
        client.send("before")
        await received(client, "before")
        await asyncio.to_thread(getattr(outside.server, end))
        code = {"stop": 1001, "kill": 1006}[end]
        with pytest.raises(ConnectionClosed) as closed:
            await raw.recv()
        assert (closed.value.rcvd.code if closed.value.rcvd else 1006) == code
        await told(client, "open", code)
        client.send("meanwhile")
        await asyncio.to_thread(outside.server.start)
        await told(client, "open")
        await received(client, "meanwhile")
        assert await client.call("spoken") == 2
        assert await client.call("add", [4]) == 7
        assert await client.call("about") == [["a", ["a", "x"], {"secret": "s"}, False]]
        assert outside.notes("start", "connect") == [
            "start 0",
            "connect a",
            "connect raw",
            "connect a",
        ]
        # by what its own end of the link saw of them, in whatever order they went
        assert sorted(outside.notes("close")) == [f"close a {code}", f"close raw {code}"]


@pytest.mark.parametrize("message", ["block", "wait"])
async def test_hook_that_never_returns_does_not_keep_the_kernel(outside, message):
    """A kernel whose agent is stuck goes by itself when it is asked to, and soon."""
    async with outside.client() as client:
        client.send(message)
        await outside.noted(f"message a {message}")
        began = time.monotonic()
        assert await asyncio.to_thread(outside.kernel.ask_to_go) == 0
        assert time.monotonic() - began < LIMIT_S / 2
        await told(client, "open", "suspended")
        assert outside.notes("stop") == ([] if message == "block" else ["stop"])


async def test_kernel_that_does_not_come_back(start_server, tmp_path):
    """Clients that have waited longer than the grace time, or in vain, are closed with 1012."""
    server = start_server(options=("--AgentsApp.grace_s=1",))
    keeper = Keeper(await asyncio.to_thread(server.kernel), tmp_path / "journal")
    for end in (keeper.kernel.restart, keeper.kernel.shutdown):
        await asyncio.to_thread(keeper.serve)
        async with keeper.socket() as raw, keeper.client(secret=end.__name__) as client:
            await told(client, "open")
            await asyncio.to_thread(end)
            with pytest.raises(ConnectionClosed) as closed:
                await raw.recv()
            assert closed.value.rcvd.code == 1012
            await told(client, "suspended", 1012)
    assert "restart" in server.log()
