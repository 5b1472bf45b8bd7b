"""``jupyter agents list``: what is served where."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from jupyter_agents.cli.terminal import NO_CONNECTION, OK, note, say, shown
from jupyter_agents.client.discovery import RunningServer, ServerNotFound, running_servers
from jupyter_agents.client.fetch import agent_fetch

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["run"]

Hosts = list[dict[str, Any]]
_ANSWER_S = 5.0


def run(options: argparse.Namespace) -> int:
    """Print what every running server serves, or the one that is named."""
    named = [RunningServer(options.host, options.token or "")] if options.host else []
    servers = named or running_servers()
    if not servers:
        raise ServerNotFound("No running Jupyter Server was found; start one, or use --host")
    answers = asyncio.run(_ask_all(servers))
    for server, hosts in zip(servers, answers, strict=True):
        if options.json:
            say(shown({"url": server.url, "hosts": hosts}))
        else:
            say("\n".join([server.url, *_table(hosts)]))
    return NO_CONNECTION if all(hosts is None for hosts in answers) else OK


async def _ask_all(servers: list[RunningServer]) -> list[Hosts | None]:
    return await asyncio.gather(*map(_ask, servers))


async def _ask(server: RunningServer) -> Hosts | None:
    """Give what a server serves; None when it does not tell."""
    where: dict[str, Any] = {"host": server.url, "token": server.token, "timeout": _ANSWER_S}
    try:
        response = await agent_fetch("any", base_path="api/agents", **where)
        if response.ok:
            hosts: Hosts = response.json()["hosts"]
            return hosts
        # Agents without a Jupyter Server have no API, but say what they are when asked for others.
        refusal = await agent_fetch("any", base_path="agents/~/~", **where)
        agents = [{"agent": name, "instances": []} for name in refusal.json()["agents"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        note(f"{server.url} does not tell: {error!r}")
        return None
    return [{"notebook": None, "agents": agents}]


def _table(hosts: Hosts | None) -> Iterator[str]:
    if hosts is None:
        return
    if not any(host["agents"] for host in hosts):
        yield "  nothing is served"
    for host in hosts:
        for agent in host["agents"]:
            away = " (its kernel is away)" if agent.get("state") == "parked" else ""
            notebook = f"  from {host['notebook']}" if host.get("notebook") else ""
            yield f"  {agent['agent']}{away}{notebook}"
            for each in agent["instances"]:
                yield f"    {each['name']}: {each['state']}, {each['connections']} connected"
