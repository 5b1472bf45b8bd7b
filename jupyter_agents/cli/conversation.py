"""``jupyter agents connect`` and ``call``: lines and arguments out, messages and results in."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import shlex
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from jupyter_agents.cli.terminal import NO_CONNECTION, OK, lines_of, note, say, shown, value_of
from jupyter_agents.client.client import AgentClient
from jupyter_agents.errors import AgentsError, CallTimeout

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from jupyter_agents.errors import ConnectionClosed

__all__ = ["INTERACTIVE", "call", "connect"]

INTERACTIVE = """\
Lines go to the agent as messages, except:
  /state               shows the state
  /set JSON            replaces it
  /call METHOD ARGS…   calls a method
  /quit                leaves, as the end of the input does
  //text               sends /text
"""


def call(options: argparse.Namespace) -> int:
    """Call a method, and print what comes of it."""
    with _quiet():
        return asyncio.run(_call(options))


def connect(options: argparse.Namespace) -> int:
    """Talk until the input ends, the agent ends it, or one message came with ``--once``."""
    with _quiet():
        return asyncio.run(_Conversation(options).run())


def _client(options: argparse.Namespace) -> AgentClient:
    named = {key: value for key in ("host", "token") if (value := getattr(options, key))}
    client = AgentClient(**{**options.address, **named})
    was_open: list[bool] = []
    client.on_open(lambda: was_open.append(True))
    # A wrong port is told at once; a connection that once was there comes back by itself.
    client.should_reconnect = lambda closed: bool(was_open)
    return client


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the client's warnings: what goes wrong is said here, and once is enough."""
    log = logging.getLogger("jupyter_agents.client")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


async def _call(options: argparse.Namespace) -> int:
    args = [value_of(text) for text in options.args]
    async with _client(options) as client:
        work = _print_stream(client, options.method, args, as_json=options.json)
        try:
            await asyncio.wait_for(work, options.timeout or None)
        except asyncio.TimeoutError:
            raise CallTimeout(options.method, options.timeout) from None
    return OK


async def _print_stream(
    client: AgentClient, method: str, args: list[Any], *, as_json: bool
) -> None:
    """Print the chunks as they come, then the result, if there is one."""
    is_stream = False
    async with client.stream(method, args) as stream:
        async for chunk in stream:
            is_stream = True
            say(shown(chunk, as_json=as_json))
        if stream.result is not None or (as_json and not is_stream):
            say(shown(stream.result, as_json=as_json))


class _Conversation:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._over = asyncio.Event()

    async def run(self) -> int:
        client = _client(self._options)
        client.on_open(lambda: note(f"connected to {client.agent}/{client.name}"))
        client.on_message(self._message)
        client.on_state_update(self._state)
        client.on_close(self._closed)
        client.on_connection_error(lambda closed: self._over.set())
        async with client:
            if sys.stdin.isatty():
                note(INTERACTIVE)
            await self._converse(client)
            error = client.connection_error
        if error is not None:
            note(f"error: {error}")
        return OK if error is None else NO_CONNECTION

    async def _converse(self, client: AgentClient) -> None:
        reading = asyncio.ensure_future(self._read(client))
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait([reading, over], return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def _read(self, client: AgentClient) -> None:
        async for line in lines_of(sys.stdin.fileno()):
            if line == "/quit":
                return
            await self._line(client, line)
        # At a terminal the end of input is a wish to leave; in a pipe, answers may be under way.
        if self._options.once:
            await self._over.wait()
        elif not sys.stdin.isatty():
            await asyncio.sleep(self._options.wait)

    async def _line(self, client: AgentClient, line: str) -> None:
        word, _, rest = line.partition(" ")
        try:
            if word == "/state":
                self._tell("state", client.state)
            elif word == "/set":
                await client.set_state(json.loads(rest))
            elif word == "/call":
                method, *args = shlex.split(rest) or [""]
                values = [value_of(text) for text in args]
                await _print_stream(client, method, values, as_json=self._options.json)
            elif not client.send(line[1:] if line.startswith("//") else line):
                note("error: not sent, too much is waiting already")
        except (AgentsError, ValueError) as error:
            note(f"error: {error}")

    def _message(self, message: str | bytes) -> None:
        if self._over.is_set():
            return
        if isinstance(message, str):
            self._tell("message", message)
        elif self._options.json:
            self._tell("base64", base64.b64encode(message).decode())
        else:
            self._tell("message", f"<{len(message)} bytes> {message!r}")
        if self._options.once:
            self._over.set()

    def _state(self, state: Any, source: str) -> None:
        if source == "server":
            self._tell("state", state)

    def _tell(self, kind: str, value: Any) -> None:
        if self._options.json:
            say(shown({kind: value}))
        elif kind == "state":
            note(f"state: {shown(value, as_json=True)}")
        else:
            say(str(value))

    def _closed(self, closed: ConnectionClosed) -> None:
        if not (closed.final or self._over.is_set()):
            note(f"{closed}; coming back")
