"""A real server with an agent, in a process of its own: what the tests of this folder attack.

Run as ``python -m tests.hostile.target '{"max_message_bytes": 1000000}'``; it prints its port.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from jupyter_agents import Agent, callable_method
from jupyter_agents.host.host import AgentHost
from jupyter_agents.host.storage import MemoryStorage
from jupyter_agents.instance.hosted import Hosted
from jupyter_agents.server.door import Door
from jupyter_agents.server.limits import Limits
from jupyter_agents.server.sockets import agent_routes, log_request
from jupyter_agents.standalone import LocalLink


class Target(Agent):
    """Echoes, counts, answers everything, and remembers who left."""

    initial_state = {"n": 0}
    count = 0

    def on_start(self, props=None):
        self.left = {}

    def on_message(self, connection, message):
        self.count += 1
        if isinstance(message, str) and message.startswith("ping"):
            connection.send(message)
        elif isinstance(message, str) and message.startswith("all"):
            self.broadcast(message)

    def on_close(self, connection, code, reason, was_clean):
        self.left[connection.id] = [code, reason]

    def on_request(self, request):
        return {"path": request.path, "bytes": len(request.body)}

    @callable_method
    def counted(self) -> int:
        return self.count

    @callable_method
    def gone(self, connection_id: str) -> list | None:
        return self.left.get(connection_id)

    @callable_method
    def size(self, value) -> int:
        return len(value)


async def main() -> None:
    """Serve until killed."""
    door = Door(Limits(**json.loads(sys.argv[1])))
    sock, port = bind_unused_port()
    server = HTTPServer(Application(agent_routes(door), log_function=log_request))
    server.add_socket(sock)
    host = AgentHost(asyncio.get_running_loop())
    LocalLink(door.relay, host).connect()
    await host.serve(Hosted(Target, "target", ("target", "Target"), MemoryStorage()))
    print(port, flush=True)  # noqa: T201  # the tests read it
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
