"""The client without await: `jupyter_agents.client.sync`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_agents.client.sync import SyncAgentClient, connect
from jupyter_agents.errors import (
    AgentNotFound,
    CallAborted,
    CallFailed,
    CallTimeout,
    ConnectionClosed,
)
from tests.client.tornado_server import Agents, running_in_a_thread

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def agents() -> Iterator[Agents]:
    """A server that runs while this thread blocks."""
    with running_in_a_thread() as found:
        yield found


@pytest.fixture
def client(agents: Agents) -> Iterator[SyncAgentClient]:
    """A connected client."""
    with connect("room", "x", host=agents.host) as found:
        yield found


def test_whole_conversation(client: SyncAgentClient) -> None:
    """State, calls, streams and messages work without await."""
    assert (client.state, client.ready_state) == ({"n": 0}, "open")
    assert str(client.identity) == "room/x"
    assert client.call("add", [1, 2]) == client.stub.add(1, 2) == 3
    with client.stream("count", [3]) as stream:
        assert list(stream) == [0, 1, 2]
    assert stream.result == "end"
    assert client.set_state(lambda state: {"n": state["n"] + 1}) == {"n": 1}
    assert client.send("a")
    assert client.send_json({"b": 1})
    assert [client.recv(), client.recv(timeout=5)] == ["a", '{"b":1}']


async def test_works_where_a_loop_runs(client: SyncAgentClient) -> None:
    """A notebook cell runs inside a loop: blocking calls work there all the same."""
    assert client.call("add", [1, 2]) == 3


def test_errors_come_out(client: SyncAgentClient) -> None:
    """Failures of calls, time limits and missing messages raise here."""
    with pytest.raises(CallFailed, match="failed"):
        client.call("fail")
    with pytest.raises(CallTimeout):
        client.call("nothing", timeout=0.01)
    with pytest.raises(TimeoutError):
        client.recv(timeout=0.01)
    with pytest.raises(TypeError):
        client.call("add", "12")


def test_leaving_a_stream_cancels_it(client: SyncAgentClient, agents: Agents) -> None:
    """A stream that is not wanted any more ends on both sides."""
    with client.stream("nothing") as stream:
        stream.cancel()
    assert list(stream) == []
    assert client.call("add", [1]) == 1
    assert len(agents.cancelled) == 1


def test_iteration_ends_when_closed(client: SyncAgentClient) -> None:
    """Messages can be iterated, until another thread closes the client."""
    client.send("a")
    client.send("b")
    seen = []
    for message in client:
        seen.append(message)
        if message == "b":
            threading.Thread(target=client.close).start()
    assert seen == ["a", "b"]


def test_listeners_are_called_on_the_clients_thread(client: SyncAgentClient) -> None:
    """A listener hears on the client's thread; waiting there for the client is refused."""
    heard = threading.Event()
    told: list[Any] = []

    def listener(message: Any) -> None:
        told.append((threading.current_thread().name, message))
        try:
            client.call("add", [1])
        except RuntimeError as error:
            told.append(str(error))
        told.append(client.state)
        heard.set()

    remove = client.listen("message", listener)
    client.send("a")
    assert heard.wait(5)
    assert told[0] == ("jupyter-agents-client", "a")
    assert "cannot wait" in told[1]
    assert told[2] == {"n": 0}
    remove()


def test_failure_to_connect_leaves_no_thread(agents: Agents) -> None:
    """When connecting fails, the error comes out and the thread is gone."""
    agents.refusal = 404
    before = threading.active_count()
    with pytest.raises(AgentNotFound):
        connect("room", host=agents.host)
    with pytest.raises(TypeError):
        connect("room", host=agents.host, on_nonsense=print)
    assert threading.active_count() == before


def test_closed_client_answers_from_memory(client: SyncAgentClient) -> None:
    """After close the last state can be read; calls fail at once; closing again is fine."""
    client.close(4100, "done")
    client.close()
    assert (client.state, client.ready_state) == ({"n": 0}, "closed")
    assert client.send("a") is False
    with pytest.raises(ConnectionClosed, match="client is closed"):
        client.call("add", [1])


def test_reconnect_makes_a_new_connection(client: SyncAgentClient, agents: Agents) -> None:
    """A wish to reconnect returns when the new connection is ready."""
    client.reconnect()
    assert client.call("add", [1]) == 1
    assert len(agents.requests) == 2


def test_final_close_is_remembered(client: SyncAgentClient) -> None:
    """Why the client was sent away can be read."""
    with pytest.raises(CallAborted):
        client.call("drop", [4001, "Unauthorized"])
    assert client.connection_error is not None
    assert client.connection_error.code == 4001
    assert "closed" in repr(client)
