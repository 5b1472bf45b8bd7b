"""The extension in a real Jupyter Server: settings, the link, kernels, the end."""

from __future__ import annotations

import gc
import json
import logging
import os
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from tornado.web import HTTPError

import jupyter_agents
from jupyter_agents.link.handshake import fingerprint
from jupyter_agents.server import app
from jupyter_agents.server.app import AgentsApp, JupyterKernels
from jupyter_agents.server.downlink import ENVIRONMENT
from jupyter_agents.server.limits import Limits
from tests.server.fake_host import KERNEL, FakeHost
from tests.server.jupyter import *  # noqa: F403
from tests.server.jupyter import TOKEN

RIGHT = {"Authorization": f"token {TOKEN}"}
ROOM = "agents/chat-room/lobby"


# -- settings ----------------------------------------------------------------------------------


def test_extension_is_announced():
    """Jupyter finds the extension by the package's name."""
    [point] = jupyter_agents._jupyter_server_extension_points()
    assert point == {"module": "jupyter_agents", "app": AgentsApp}
    assert AgentsApp.extension_url == "/"
    assert AgentsApp.name == "jupyter_agents"


@pytest.mark.parametrize("name", sorted(Limits.class_own_traits()))
def test_every_limit_is_a_setting(name):
    """``c.AgentsApp.x`` and ``--AgentsApp.x`` know every limit."""
    assert AgentsApp.class_traits(config=True)[name].help


class TestConfigured:
    """Settings of a configuration file."""

    @pytest.fixture
    def server_config(self):
        return {"AgentsApp": {"max_message_bytes": 1000, "grace_s": 5.0, "link_high_bytes": 7}}

    async def test_settings_arrive(self, agents):
        """What the file says is what the door, the relay and the links go by."""
        assert agents.door.socket_options.max_message_bytes == 1000
        assert agents.door.relay.limits.grace_s == 5.0
        assert agents.downlink.limits.link_high_bytes == 7


class TestCommandLine:
    """Settings of the command line."""

    @pytest.fixture
    def jp_argv(self):
        return ["--AgentsApp.max_message_bytes=2000"]

    async def test_settings_arrive(self, agents):
        """An option of the command line reaches the sockets."""
        assert agents.door.socket_options.max_message_bytes == 2000


# -- the link ----------------------------------------------------------------------------------


async def test_kernels_find_the_link(agents, jp_serverapp):
    """The address stands in the environment that kernels inherit, and in the runtime directory."""
    address = os.environ[ENVIRONMENT]
    assert address == agents.downlink.address
    assert is_socket(address)


async def test_welcome_names_the_server(agents, jp_serverapp, jp_http_port):
    """A kernel learns where its agents are reached, without any credential."""
    host = await FakeHost.connect(agents.downlink.address)
    welcome = await host.prove()
    await host.close()
    assert welcome["base_url"] == "/a%40b/"
    assert welcome["url"].endswith(f":{jp_http_port}/a%40b/")
    assert welcome["static"] == "/a%40b/agents-static/"
    assert welcome["prefix"] == "agents"
    assert welcome["max_message_bytes"] == 32 * 2**20
    assert welcome["max_frame_bytes"] == 64 * 2**20
    assert welcome["kernel_id"] == KERNEL
    assert welcome["notebook"] == "work/chat.ipynb"
    assert len(welcome["server_id"]) == 16
    assert TOKEN not in json.dumps(welcome)


class TestDisplayUrl:
    """A server that is known under another address than it listens on."""

    @pytest.fixture
    def server_config(self):
        return {"ServerApp": {"custom_display_url": "https://hub.example/user/ann"}}

    async def test_people_see_that_address(self, agents):
        """The address for people is the one that the administrator gave."""
        assert agents._welcome()["url"] == "https://hub.example/user/ann/"


async def test_stop_leaves_nothing(agents, visitor, jp_asyncio_loop):
    """Stopping says 1001 to clients, hangs up on kernels, removes socket file and variable."""
    async with visitor.host() as host:
        client = await visitor.ws(ROOM, RIGHT)
        number, _ = await host.expect_open()
        address = agents.downlink.address
        stopping = jp_asyncio_loop.create_task(agents.stop_extension())
        assert await client.read_message() is None
        assert client.close_code == 1001
        assert await host.expect_closed() == (number, 1001, True, "")
        await stopping
        await host.hung_up()
    assert not is_socket(address)
    assert ENVIRONMENT not in os.environ
    assert not agents.downlink.links
    assert not agents.door.sockets


async def test_collector_is_spared(agents, visitor):
    """What is there at the start is no garbage to look for, until the server stops."""
    async with visitor.host():
        assert gc.get_freeze_count() > 0
        await agents.stop_extension()
        assert gc.get_freeze_count() == 0


class TestCollectorAsItIs:
    """Python's collector left alone."""

    @pytest.fixture
    def server_config(self):
        return {"AgentsApp": {"spare_collector": False}}

    async def test_setting(self, agents, visitor):
        """Who does not want that can say so."""
        async with visitor.host():
            assert gc.get_freeze_count() == 0


async def test_ticks_close_what_waited_too_long(agents, visitor, eventually):
    """The extension's own clock ends the grace time: 1012 without anybody's help."""
    async with visitor.host() as host:
        client = await visitor.ws(ROOM, RIGHT)
        await host.expect_open()
    await eventually(lambda: not agents.downlink.links)
    agents.door.clock = lambda: 1e12
    await agents._tick()
    assert await client.read_message() is None
    assert client.close_code == 1012


async def test_shut_down_kernels_are_forgotten(agents, visitor, eventually):
    """When Jupyter has shut the kernel down, its clients do not wait for the grace time."""
    async with visitor.host() as host:
        client = await visitor.ws(ROOM, RIGHT)
        await host.expect_open()
    await eventually(lambda: not agents.downlink.links)
    agents.downlink.kernels.keys.clear()
    await agents._tick()
    assert await client.read_message() is None
    assert client.close_code == 1012


async def test_log_lines_are_structured(agents, visitor, caplog, monkeypatch):
    """Each event is one line of JSON, so that no client's text can forge another."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(app, "_LEVELS", {"close": logging.INFO})
    async with visitor.host() as host:
        client = await visitor.ws(f"{ROOM}?_pk=a%0AWARNING%20forged", RIGHT)
        await host.expect_open()
        client.close(4000, "two\nlines")
        await host.expect_closed()
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("agents ")]
    assert not [line for line in lines if "\n" in line]
    [closed] = [line for line in lines if line.startswith("agents close")]
    assert json.loads(closed.removeprefix("agents close ")) == {
        "agent": "chat-room",
        "name": "lobby",
        "id": "a\nWARNING forged",
        "code": 4000,
        "reason": "two\nlines",
    }


def is_socket(address):
    """Whether kernels would find a socket there."""
    return Path(address).is_socket()


# -- kernels -----------------------------------------------------------------------------------


class FakeManager(dict):
    """A kernel manager: ids and kernels."""

    cull_connected = False

    def list_kernel_ids(self):
        return list(self)

    def get_kernel(self, kernel_id):
        return self[kernel_id]


class FakeSessions:
    """A session manager with one notebook."""

    async def get_session(self, *, kernel_id):
        if kernel_id == "one":
            return {"path": "a/b.ipynb", "type": "notebook"}
        raise HTTPError(404)

    async def session_exists(self, path):
        return path == "a/b.ipynb"


@pytest.fixture
def manager():
    """Two kernels of this server, and one of a gateway, whose key is not known here."""
    return FakeManager(
        one=SimpleNamespace(session=SimpleNamespace(key=b"key one"), last_activity=None),
        two=SimpleNamespace(session=SimpleNamespace(key=b"key two"), last_activity=None),
        far=SimpleNamespace(last_activity=None),
    )


@pytest.fixture
def settings(manager):
    return {
        "kernel_manager": manager,
        "session_manager": FakeSessions(),
        "last_activity_times": {},
    }


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (b"key one", (b"key one", "one")),
        (b"key two", (b"key two", "two")),
        (b"key three", None),
        (b"", None),
    ],
)
def test_kernels_are_found_by_their_key(settings, key, found):
    """The fingerprint of a kernel's key finds it; an empty key is nobody's."""
    assert JupyterKernels(settings).find_key(fingerprint(key)) == found


async def test_kernels_notebook(settings):
    """A kernel with a session has a notebook; one without has none."""
    kernels = JupyterKernels(settings)
    assert await kernels.about("one") == {"notebook": "a/b.ipynb"}
    assert await kernels.about("two") == {}


async def test_kernels_process(settings, manager):
    """The process id is known where this server started the kernel, and told with the notebook."""
    kernels = JupyterKernels(settings)
    assert [kernels.process(name) for name in ("one", "far", "none")] == [None, None, None]
    manager["one"].provisioner = SimpleNamespace(pid=7)
    manager["two"].provisioner = SimpleNamespace(pid=None)
    assert [kernels.process(name) for name in ("one", "two")] == [7, None]
    assert await kernels.about("one") == {"notebook": "a/b.ipynb", "pid": 7}


async def test_kernel_may_return_while_jupyter_has_it(settings, manager):
    """A kernel that was shut down does not, unless its notebook has another one now."""
    kernels = JupyterKernels(settings)
    assert await kernels.may_return({"kernel_id": "one"})
    del manager["one"]
    assert not await kernels.may_return({"kernel_id": "one"})
    assert not await kernels.may_return({"kernel_id": "one", "notebook": "gone.ipynb"})
    assert await kernels.may_return({"kernel_id": "one", "notebook": "a/b.ipynb"})


@pytest.mark.parametrize(
    ("traffic", "cull_connected", "is_touched", "is_server_touched"),
    [
        (True, False, True, True),
        (True, True, True, True),
        (False, False, True, False),
        (False, True, False, False),
    ],
)
def test_kernel_is_not_culled(
    settings, manager, traffic, cull_connected, is_touched, is_server_touched
):
    """Traffic is activity; mere connections keep a kernel as Jupyter's own connections would."""
    manager.cull_connected = cull_connected
    before = datetime.now(timezone.utc)
    kernels = JupyterKernels(settings)
    kernels.touch("one", traffic=traffic)
    kernels.touch("gone", traffic=traffic)
    touched = manager["one"].last_activity
    assert (touched is not None and touched >= before) is is_touched
    assert ("jupyter_agents" in settings["last_activity_times"]) is is_server_touched
    assert manager["two"].last_activity is None


@pytest.fixture
def at_last():
    """What is to be done when the server, asked for after this one, is gone."""
    with ExitStack() as stack:
        yield stack


async def test_real_kernel_manager_has_what_we_use(at_last, jp_serverapp):
    """Jupyter's own managers answer the questions that our fakes answer.

    The session manager never closes its database, and Python 3.13 warns of that.
    """
    settings = jp_serverapp.web_app.settings
    kernels = JupyterKernels(settings)
    assert kernels.find_key(fingerprint(b"x")) is None
    assert not await kernels.may_return({"kernel_id": "x", "notebook": "x.ipynb"})
    assert await kernels.about("x") == {}
    kernels.touch("x", traffic=True)
    assert "last_activity_times" in settings
    sessions = settings["session_manager"]
    at_last.callback(lambda: (sessions.close(), sessions.connection.close()))
