"""`serve` in a plain script: the agents' thread, standing alone, and the end of it."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from types import SimpleNamespace

import pytest
from traitlets import Float

from jupyter_agents import (
    Agent,
    HostLimits,
    ServeError,
    connect,
    get_agent_by_name,
    serve,
    serving,
)
from jupyter_agents.errors import AgentNotFound, HostStopped, LinkVersionMismatch
from jupyter_agents.serving import default_host, stop_default_host


class Echo(Agent):
    initial_state = {"n": 0}

    def on_message(self, connection, message):
        connection.send(message)

    def shout(self, text):
        return text.upper()

    async def later(self, text):
        await asyncio.sleep(0)
        return text


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A process that no Jupyter Server serves; its agents end with the test."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("JUPYTER_AGENTS_LINK", raising=False)
    stop_default_host()
    yield
    stop_default_host()
    gc.collect()


def test_script_serves_on_loopback_with_a_token(alone, capsys):
    """Without a Jupyter Server address and token are printed, and clients get in by them."""
    ns = serve(Echo, storage="memory")
    said = capsys.readouterr().out
    assert "http://127.0.0.1:" in said
    token = ns.host.server["token"]
    assert token in said
    assert token not in ns.url("lobby")

    async def talk():
        options = {"host": ns.host.server["url"], "token": token}
        async with connect("echo", "lobby", **options) as client:
            client.send("hi")
            return await client.recv(5)

    assert asyncio.run(talk()) == "hi"


def test_limits_are_set_by_environment_or_serve(alone, monkeypatch):
    """A variable of the limit's name holds from the start, what `serve` is given from then on."""
    monkeypatch.setenv("JUPYTER_AGENTS_IDLE_S", "60.5")
    monkeypatch.setenv("JUPYTER_AGENTS_MAX_AWAKE", "7")
    host = serve(Echo, storage="memory").host
    assert host.limits == HostLimits(idle_s=60.5, max_awake=7)
    serve(Echo, storage="memory", limits=HostLimits(outbox_bytes=2000))
    assert host.limits == HostLimits(outbox_bytes=2000)
    assert host._outbox_limit == 2000


def test_switch_interval_is_python_s_unless_asked_for(alone, monkeypatch):
    """The setting is the whole process's, so it is touched only by who sets it."""
    before = sys.getswitchinterval()
    try:
        serve(Echo, storage="memory")
        assert sys.getswitchinterval() == before
        serve(Echo, storage="memory", limits=HostLimits(switch_interval_s=0.002))
        assert sys.getswitchinterval() == pytest.approx(0.002)
        stop_default_host()
        monkeypatch.setenv("JUPYTER_AGENTS_SWITCH_INTERVAL_S", "0.003")
        serve(Echo, storage="memory")
        assert sys.getswitchinterval() == pytest.approx(0.003)
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize(
    ("said", "named"), [("soon", "JUPYTER_AGENTS_IDLE_S"), ("-1", "idle_s"), ("nan", "idle_s")]
)
def test_limits_that_make_no_sense_are_named(alone, monkeypatch, said, named):
    """A variable that is no number, or a senseless one, is an error that names it."""
    monkeypatch.setenv("JUPYTER_AGENTS_IDLE_S", said)
    with pytest.raises(ServeError, match=named):
        serve(Echo, storage="memory")
    monkeypatch.delenv("JUPYTER_AGENTS_IDLE_S")
    assert serve(Echo, storage="memory").is_served


def test_handles_work_in_a_script(alone):
    """Sync methods return, async ones are awaited, a typed field is assigned and refused."""

    class Thermostat(Agent):
        target = Float(20.0, min=5, max=30).tag(sync=True)

    room = serve(Echo, storage="memory")["lobby"]
    assert room.shout("hi") == "HI"
    assert asyncio.run(room.later("hi")) == "hi"
    kitchen = serve(Thermostat, storage="memory")["kitchen"]
    kitchen.target = 21
    assert kitchen.target == 21.0
    with pytest.raises(Exception, match="target"):
        kitchen.target = 99
    assert kitchen.state == {"target": 21.0}


def test_one_host_for_all_classes_of_a_process(alone):
    """A second `serve` uses the same thread, port and token."""

    class Other(Agent):
        pass

    first, second = serve(Echo, storage="memory"), serve(Other, storage="memory")
    assert first.host is second.host is default_host()
    assert first.url("x").partition("/agents/")[0] == second.url("x").partition("/agents/")[0]


def test_handle_of_an_ended_host_says_so(alone):
    """After the stop, a handle says to serve again, sync and async, instead of hanging."""
    room = serve(Echo, storage="memory")["lobby"]
    stop_default_host()
    with pytest.raises(HostStopped, match=r"serve\(...\) again"):
        room.shout("hi")
    with pytest.raises(HostStopped):
        asyncio.run(room.later("hi"))


def test_agents_get_each_other_by_name(alone):
    """`get_agent_by_name` gives started instances to cells and agents; unknown ones are named."""

    class Asker(Agent):
        async def ask(self):
            echo = await get_agent_by_name(Echo, "other")
            return [echo.shout("hi"), await echo.later("yes"), echo.state]

        def serve_more(self):
            serve(Echo)

    serve(Echo, storage="memory")
    asker = serve(Asker, storage="memory")["a"]
    assert asyncio.run(asker.ask()) == ["HI", "yes", {"n": 0}]
    assert asyncio.run(get_agent_by_name("echo", "lobby")).shout("x") == "X"
    with pytest.raises(AgentNotFound, match="served now: echo, asker"):
        asyncio.run(get_agent_by_name("nobody"))
    with pytest.raises(ServeError, match="in a cell"):
        asker.serve_more()


def test_serving_while_a_hook_blocks_says_which(alone, monkeypatch):
    """A class that cannot be served in time names the hook that is in the way."""
    release, blocked = threading.Event(), threading.Event()

    class Blocking(Agent):
        def on_start(self, props=None):
            blocked.set()
            release.wait(10)

    ns = serve(Blocking, storage="memory")
    thread = threading.Thread(target=lambda: ns["x"])
    thread.start()
    assert blocked.wait(5)
    monkeypatch.setattr(serving, "SERVE_S", 0.1)
    try:
        with pytest.raises(ServeError, match=r"Blocking\.on_start"):
            serve(Echo, storage="memory")
        with pytest.raises(ServeError, match=r"Blocking\.on_start"):
            serve(Echo, storage="memory", limits=HostLimits(idle_s=60))
    finally:
        release.set()
        thread.join()


def test_host_that_cannot_start_leaves_no_thread(alone, monkeypatch):
    """Where the link refuses us, `serve` raises why, and the thread ends."""

    async def refuse(host):
        raise LinkVersionMismatch("1", "2")

    monkeypatch.setattr(serving, "_link", refuse)
    with pytest.raises(LinkVersionMismatch, match="link 1"):
        serve(Echo, storage="memory")
    assert not any(t.name == "jupyter-agents" and t.is_alive() for t in threading.enumerate())


def test_stop_ends_thread_and_port_and_serving_starts_anew(alone):
    """After the stop nothing is left; the next `serve` has a new host."""
    before = default_host()
    serve(Echo, storage="memory")
    stop_default_host()
    assert not any(t.name == "jupyter-agents" and t.is_alive() for t in threading.enumerate())
    assert serve(Echo, storage="memory").host is not before


@pytest.mark.parametrize(
    "wrong", [int, "Echo", Echo.on_message, Agent], ids=["type", "text", "method", "Agent"]
)
def test_unservable_things_say_what_to_do(wrong):
    """A class that is no Agent, or Agent itself, is a sentence that says what to write."""
    with pytest.raises(ServeError, match="class"):
        serve(wrong)


def test_linked_process_cannot_stand_alone_too(alone, monkeypatch):
    """`standalone=True` where a Jupyter Server serves already says what to do."""
    default_host()
    monkeypatch.setattr(serving._default, "uplink", object())
    with pytest.raises(ServeError, match="restart the kernel"):
        serve(Echo, standalone=True)
    monkeypatch.setattr(serving._default, "uplink", None)


def test_browser_kernels_are_told_that_it_cannot_work(monkeypatch):
    """JupyterLite has no server; `serve` says so, importing works."""
    monkeypatch.setattr(serving.sys, "platform", "emscripten")
    with pytest.raises(ServeError, match="JupyterLite"):
        serve(Echo)


def test_hook_that_blocks_is_named(alone, caplog):
    """The watchdog names the hook that keeps all agents waiting."""
    release, blocked = threading.Event(), threading.Event()

    class Blocking(Agent):
        def stall(self):
            blocked.set()
            release.wait(10)

    handle = serve(Blocking, storage="memory")["x"]
    thread = threading.Thread(target=handle.stall)
    thread.start()
    assert blocked.wait(5)
    try:
        deadline = threading.Event()
        while "kept all agents waiting" not in caplog.text and not deadline.wait(0.05):
            pass
    finally:
        release.set()
        thread.join()
    assert "asyncio.to_thread" in caplog.text


class Shell:
    """An IPython shell that runs a cell."""

    kernel = None

    def __init__(self, code):
        self.code = code

    def get_parent(self):
        return {"content": {"code": self.code}}


def test_autostart_sends_the_cells_source_along(alone, monkeypatch):
    """The server is told the source; serving without autostart takes it back."""
    monkeypatch.setitem(
        sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: Shell("x = 1"))
    )
    hosted = serve(Echo, storage="memory", autostart=True)._hosted
    assert hosted.registration()["autostart"] == "x = 1"
    serve(Echo, storage="memory")
    assert hosted.registration()["autostart"] == ""


@pytest.mark.parametrize(
    ("code", "said"), [("", "not called in a notebook cell"), ("x" * 300_000, "262144 bytes")]
)
def test_autostart_needs_a_cell(alone, monkeypatch, code, said):
    """Outside of a cell, and for one that is too long, nothing is served."""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: Shell(code)))
    with pytest.raises(ServeError, match=said):
        serve(Echo, storage="memory", autostart=True)
