"""Every limit and time-out of the server, as documented traits.

`AgentsApp` inherits them, so that a configuration file says ``c.AgentsApp.grace_s = 60``;
`standalone` makes a plain ``Limits(grace_s=60)``. docs/limits.md says what happens at each limit.
"""

from __future__ import annotations

from traitlets import Bool, Float, HasTraits, Int

from jupyter_agents.access.gate import GateLimits
from jupyter_agents.link.records import RelayLimits
from jupyter_agents.websocket.protocol import Deflate, SocketOptions

__all__ = ["Limits"]

_KIB = 1024
_MIB = 1024 * _KIB
_FRAME_ROOM_BYTES = 2 * _MIB
"""For a link frame's own words: 64 KiB of HTTP headers, 4 bytes per recipient of a broadcast."""


class Limits(HasTraits):
    """What one server bounds. Sizes in bytes, times in seconds."""

    max_message_bytes = Int(
        32 * _MIB,
        min=1,
        help="Longest message of a client over its WebSocket; a longer one closes it with 1009.",
    ).tag(config=True)
    max_http_body_bytes = Int(
        32 * _MIB,
        min=0,
        help="Longest body of an HTTP request; a longer one gets 413.",
    ).tag(config=True)
    outbound_bytes = Int(
        8 * _MIB,
        min=1,
        help=(
            "Bytes that may wait for one slow client. Past it stale state frames are "
            "dropped, then the client is closed with 1013; nobody else waits for it."
        ),
    ).tag(config=True)
    max_messages_per_s = Float(
        0.0,
        min=0.0,
        help=(
            "Messages a second that one client may send, with a second's worth at once. Past it "
            "the client is not read for a while, never closed; 0 sets no limit."
        ),
    ).tag(config=True)
    max_bytes_per_s = Float(
        0.0, min=0.0, help="The same for the bytes of its messages; 0 sets no limit."
    ).tag(config=True)
    compression = Bool(
        False, help="Offer permessage-deflate to clients; saves bytes and costs much time."
    ).tag(config=True)
    ping_interval_s = Float(
        30.0, min=0.0, help="Time between pings to a client; 0 sends none."
    ).tag(config=True)
    ping_timeout_s = Float(
        30.0,
        min=0.0,
        help="How long a client may stay silent after a ping before it counts as gone (1006).",
    ).tag(config=True)
    close_timeout_s = Float(
        5.0, min=0.0, help="How long a client may take to answer a close frame (1006)."
    ).tag(config=True)
    max_connections = Int(
        100_000, min=1, help="WebSockets at once; one more is closed with 1013."
    ).tag(config=True)
    grace_s = Float(
        600.0,
        min=0.0,
        help="How long connections wait for their kernel to come back; then 1012.",
    ).tag(config=True)
    waiting_bytes = Int(
        4 * _MIB,
        min=0,
        help=(
            "Messages kept for one connection until its agent has begun with them. Past it 1013 "
            "while its kernel is away; while it is there, the client is not read."
        ),
    ).tag(config=True)
    waiting_total_bytes = Int(
        64 * _MIB,
        min=0,
        help="The same for all connections, and once more for all HTTP requests (503).",
    ).tag(config=True)
    request_timeout_s = Float(
        60.0,
        min=0.0,
        help="How long an HTTP request waits: 504 if its agent was asked, 503 if it was away.",
    ).tag(config=True)
    max_requests = Int(
        1_000, min=1, help="HTTP requests to agents under way at once; one more gets 503."
    ).tag(config=True)
    link_high_bytes = Int(
        4 * _MIB,
        min=1,
        help="Bytes waiting for a busy kernel at which its clients are no longer read.",
    ).tag(config=True)
    link_low_bytes = Int(
        1 * _MIB,
        min=0,
        help="Bytes waiting for a busy kernel at which they are read again.",
    ).tag(config=True)
    max_link_frame_bytes = Int(
        64 * _MIB,
        min=_FRAME_ROOM_BYTES,
        help="Longest frame a kernel may send; it bounds what an agent can send in one message.",
    ).tag(config=True)
    event_interval_s = Float(
        1.0,
        min=0.1,
        help=(
            "Least time between two events about one class's state changes, calls or errors; "
            "those in between are counted."
        ),
    ).tag(config=True)
    handshake_timeout_s = Float(
        5.0, min=0.1, help="How long a kernel may take to prove itself on a new link."
    ).tag(config=True)
    max_handshakes = Int(
        32, min=1, help="Links that have not proved themselves yet; one more is hung up on."
    ).tag(config=True)
    stop_timeout_s = Float(
        2.0,
        min=0.0,
        help="How long a stopping server waits for its clients to answer the close frame (1001).",
    ).tag(config=True)

    allow_links = Bool(
        True, help="Whether links may be shared, and open anything; off, every link is dead."
    ).tag(config=True)
    allow_public = Bool(
        False,
        help=(
            'Whether a class may say access = "public": everyone who reaches the server may then '
            "talk to it. Off, such a class is not served, and its cell says so."
        ),
    ).tag(config=True)
    max_share_s = Float(
        30 * 24 * 3600.0,
        min=1.0,
        help="How long a shared link may be good at most; `share` refuses a longer one.",
    ).tag(config=True)
    max_shares = Int(
        1_000, min=0, help="Links that are good at once; `share` refuses one more."
    ).tag(config=True)
    ticket_s = Float(
        30.0, min=1.0, help="How long a one-time ticket is good; later it opens nothing (403)."
    ).tag(config=True)
    max_tickets = Int(
        10_000, min=1, help="Tickets that are out and not used; one more is refused with 503."
    ).tag(config=True)

    def gate_limits(self) -> GateLimits:
        """What the gate bounds and allows."""
        return GateLimits(
            allow_links=self.allow_links,
            max_share_s=self.max_share_s,
            max_shares=self.max_shares,
            ticket_s=self.ticket_s,
            max_tickets=self.max_tickets,
        )

    def relay_limits(self) -> RelayLimits:
        """What the relay bounds."""
        return RelayLimits(
            grace_s=self.grace_s,
            waiting_bytes=self.waiting_bytes,
            waiting_total_bytes=self.waiting_total_bytes,
            request_timeout_s=self.request_timeout_s,
            max_requests=self.max_requests,
            max_connections=self.max_connections,
            allow_public=self.allow_public,
        )

    def socket_options(self) -> SocketOptions:
        """What each WebSocket bounds."""
        return SocketOptions(
            max_message_bytes=self.max_message_bytes,
            max_queue_bytes=self.outbound_bytes,
            close_timeout_s=self.close_timeout_s,
            ping_interval_s=self.ping_interval_s,
            ping_timeout_s=self.ping_timeout_s,
            compression=Deflate() if self.compression else None,
        )

    def frame_bytes(self) -> int:
        """The longest payload either end of the link has to take."""
        longest_in = max(self.max_message_bytes, self.max_http_body_bytes)
        return max(self.max_link_frame_bytes, longest_in + _FRAME_ROOM_BYTES)

    def link_water(self) -> tuple[int, int]:
        """High and low water of a link; a low one above the high one would never let it flow."""
        return self.link_high_bytes, min(self.link_low_bytes, self.link_high_bytes)
