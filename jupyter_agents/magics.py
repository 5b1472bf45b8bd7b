"""``%load_ext jupyter_agents``: ``%agents`` shows what this kernel serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_agents.host.host import Hosted

__all__ = ["agents", "load"]

_USAGE = "%agents lists what is served; %agents stop AGENT; %agents reset AGENT NAME"


def load(ipython: Any) -> None:
    """Add ``%agents`` to this IPython."""
    ipython.register_magic_function(agents, "line", "agents")


def agents(line: str) -> str | None:
    """Show or change what this kernel serves.

    ``%agents`` lists classes, instances and connections; ``%agents stop AGENT`` serves a class no
    longer; ``%agents reset AGENT NAME`` drops what is stored of an instance.
    """
    from jupyter_agents.host.namespace import AgentNamespace
    from jupyter_agents.serving import default_host

    host = default_host()
    words = line.split()
    if not words:
        return _listing(list(host.classes.values()))
    try:
        hosted = host.find(words[1]) if len(words) > 1 else None
    except LookupError:
        return f"No agent {words[1]!r} is served here; {_USAGE}"
    if hosted is not None and words[0] == "stop" and len(words) == 2:
        AgentNamespace(host, hosted).stop()
    elif hosted is not None and words[0] == "reset" and len(words) == 3:
        AgentNamespace(host, hosted).reset(words[2])
    else:
        return _USAGE
    return None


def _listing(served: list[Hosted]) -> str:
    if not served:
        return "No agents are served by this kernel; run serve(YourAgent)"
    lines = []
    for hosted in served:
        lines.append(f"{hosted.cls.__name__} at agents/{hosted.agent}/…")
        for name, instance in sorted(hosted.instances.items()):
            mood = "awake" if instance.started else "asleep"
            lines.append(f"  {name}: {len(instance.members)} connections, {mood}")
    return "\n".join(lines)
