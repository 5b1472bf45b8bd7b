"""Agents without a Jupyter Server: the same relay and handlers in this process, on loopback, with a token.

`serve` starts it by itself where no Jupyter Server is found (VS Code, plain IPython, a script). `agent_handlers` puts
agents into a Tornado application of your own. `LocalLink` is the link without a socket; the test harness uses it, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_agents.host.host import AgentHost
    from jupyter_agents.link.relay import Relay

__all__ = ["LocalLink"]


class LocalLink:
    """Relay and host on one loop: frames as tuples, no bytes copied, one delivery per turn each way.

    Parameters
    ----------
    relay : Relay
        The server's side.
    host : AgentHost
        The kernel's side; both run on the host's loop.
    about : dict, optional
        As a kernel would say about itself.
    """

    full = False
    is_full = False

    def __init__(self, relay: Relay, host: AgentHost, about: dict[str, Any] | None = None) -> None:
        self.id = "local"
        self.about = about or {"kernel_id": "local"}
        self._relay = relay
        self._host = host
        self._to_host: list[tuple[int, int, bytes]] = []
        self._is_up = False

    def connect(self, server: dict[str, Any] | None = None) -> None:
        """Join the two."""
        self._is_up = True
        self._host.link_up(self, server or {"server_id": "local"})

    def break_off(self, now: float) -> None:
        """Part them, as when a kernel dies: what was under way is lost, the relay parks."""
        self._is_up = False
        self._to_host.clear()
        self._host.link_down()
        self._relay.host_left(self, now)

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        """From the relay to the host, with the next turn of the loop."""
        if not self._to_host:
            self._host.loop.call_soon(self._deliver)
        self._to_host.append((kind, number, payload))

    def _deliver(self) -> None:
        frames, self._to_host = self._to_host, []
        if self._is_up:
            self._host.frames(frames)

    def send_frames(self, frames: list[tuple[int, int, bytes]]) -> None:
        """From the host to the relay, now."""
        for frame in frames:
            if self._is_up:
                self._relay.host_frame(self, frame)

    async def drained(self) -> None:
        """Return at once: nothing is buffered here."""
