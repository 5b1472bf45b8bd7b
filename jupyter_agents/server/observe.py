"""What an administrator sees: events by `jupyter_events`, and Prometheus metrics on ``/metrics``.

Nothing here costs anything per message. Events come as often as connections do; metrics are read
off the open sockets when somebody asks for them. The server never opens a message: state changes,
calls and errors are counted by the kernels, while somebody listens, and told once in a while.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jupyter_events import EventLogger
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from jupyter_agents.server.door import ClientSocket, Door
    from jupyter_agents.server.downlink import Downlink

    _Values = defaultdict[str, float]

__all__ = ["ACTIVITY_EVENTS", "AGENT_EVENTS", "CONNECTION_EVENTS", "OTHERS", "Events", "Metrics"]

_log = logging.getLogger(__name__)

CONNECTION_EVENTS = "https://events.jupyter.org/jupyter_agents/connection/v1"
AGENT_EVENTS = "https://events.jupyter.org/jupyter_agents/agent/v1"
ACTIVITY_EVENTS = "https://events.jupyter.org/jupyter_agents/activity/v1"

OTHERS = "(others)"
"""The label of all classes past the first `_MAX_CLASSES`; no class has such an address."""

_MAX_CLASSES = 100
_SCHEMAS = Path(__file__).with_name("event_schemas")
_ACTIONS = MappingProxyType(
    {
        "open": (CONNECTION_EVENTS, "connect"),
        "close": (CONNECTION_EVENTS, "disconnect"),
        "drop": (CONNECTION_EVENTS, "drop"),
        "serve": (AGENT_EVENTS, "serve"),
        "withdraw": (AGENT_EVENTS, "withdraw"),
        "park": (AGENT_EVENTS, "park"),
        "resume": (AGENT_EVENTS, "resume"),
    }
)
# The relay's other facts stay here: a reason or a notebook's path may say what is nobody's affair.
_PUBLIC = MappingProxyType(
    {
        CONNECTION_EVENTS: ("agent", "name", "id", "code", "why"),
        AGENT_EVENTS: ("agent", "class", "connections", "code"),
        ACTIVITY_EVENTS: (
            *("agent", "name", "count"),
            *("version", "source", "failed", "method", "where", "type"),
        ),
    }
)


class Events:
    """The relay's events for the listeners and handlers of Jupyter's event logger.

    Parameters
    ----------
    logger : EventLogger
        The server's; it learns our schemas.
    """

    def __init__(self, logger: EventLogger) -> None:
        self._logger = logger
        for path in sorted(_SCHEMAS.glob("*.yaml")):
            logger.register_event_schema(path)

    def emit(self, kind: str, facts: dict[str, Any]) -> None:
        """Pass on one event of the relay, if it is one for the public; never raises."""
        if kind == "tally":
            schema_id, action = ACTIVITY_EVENTS, facts.get("action")
        elif kind in _ACTIONS:
            schema_id, action = _ACTIONS[kind]
        else:
            return
        data = {key: facts[key] for key in _PUBLIC[schema_id] if key in facts}
        try:
            self._logger.emit(schema_id=schema_id, data={"action": action, **data})
        except Exception:
            # A modifier or handler of somebody else's must not cost a client its connection.
            _log.exception("The event %s could not be recorded", action)

    @property
    def is_activity_heard(self) -> bool:
        """Whether anybody would hear what agents do; if not, no kernel need count it."""
        logger = self._logger
        try:  # there is no public way to ask
            listeners = (logger._modified_listeners, logger._unmodified_listeners)
        except AttributeError:
            return True
        return bool(logger.handlers) or any(known.get(ACTIVITY_EVENTS) for known in listeners)


class _Series(NamedTuple):
    """One metric: the key under which its values are summed, and what it is called."""

    key: str
    name: str
    help: str
    family: type[GaugeMetricFamily | CounterMetricFamily]


_BY_CLASS = (
    _Series("connections", "connections", "Open WebSockets", GaugeMetricFamily),
    _Series(
        "parked",
        "parked_records",
        "Connections remembered for a kernel that is away",
        GaugeMetricFamily,
    ),
    _Series(
        "queued_bytes", "outbound_queue_bytes", "Bytes waiting for slow clients", GaugeMetricFamily
    ),
    _Series(
        "round_trip",
        "client_round_trip_seconds",
        "Mean of the open WebSockets' latest pings",
        GaugeMetricFamily,
    ),
    _Series(
        "link_round_trip",
        "link_round_trip_seconds",
        "How long the class's kernel took to answer the server's latest probe, or has not by now",
        GaugeMetricFamily,
    ),
    _Series(
        "requests", "requests_pending", "Questions that wait for the kernel", GaugeMetricFamily
    ),
    _Series(
        "oldest_request",
        "oldest_request_seconds",
        "How long the oldest of them has waited",
        GaugeMetricFamily,
    ),
    _Series("opened", "connections_opened", "WebSockets opened", CounterMetricFamily),
    _Series(
        "dropped",
        "connections_dropped",
        "WebSockets given up as too much waited for their kernel",
        CounterMetricFamily,
    ),
    _Series("messages_in", "messages_received", "Messages from clients", CounterMetricFamily),
    _Series("messages_out", "messages_sent", "Messages to clients", CounterMetricFamily),
    _Series("bytes_in", "received_bytes", "Bytes from WebSockets", CounterMetricFamily),
    _Series("bytes_out", "sent_bytes", "Bytes to WebSockets", CounterMetricFamily),
)
_OF_ALL = (
    _Series("links", "links", "Kernels that are linked", GaugeMetricFamily),
    _Series(
        "full",
        "links_full",
        "Links so far behind that their clients are not read",
        GaugeMetricFamily,
    ),
)
_LASTING = ("messages_in", "messages_out", "bytes_in", "bytes_out")


class Metrics(Collector):
    """``jupyter_agents_*`` on the server's ``/metrics``.

    The only label is ``agent``, the address of a class, and of these there are at most
    `_MAX_CLASSES` and `OTHERS`: kernels name classes, and may make up names for ever.

    Parameters
    ----------
    door, downlink
        Looked at when somebody asks.
    registry : CollectorRegistry
        The one that Jupyter's ``/metrics`` shows.

    Thread
    ------
    The server's loop, where ``/metrics`` is answered.
    """

    def __init__(
        self, door: Door, downlink: Downlink, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._door = door
        self._downlink = downlink
        self._registry = registry
        self._is_registered = False
        self._past: dict[str, _Values] = {}
        """What closed sockets left behind, so that no counter ever falls."""

    def start(self) -> None:
        """Show the metrics from now on."""
        try:
            self._registry.register(self)
        except ValueError:
            _log.warning("/metrics shows the agents of another server in this process")
        else:
            self._is_registered = True

    def stop(self) -> None:
        """Show them no more."""
        if self._is_registered:
            self._is_registered = False
            self._registry.unregister(self)

    def count(self, kind: str, facts: dict[str, Any]) -> None:
        """Take note of one event of the relay."""
        if kind == "open":
            self._past_of(facts["agent"])["opened"] += 1
        elif kind == "drop":
            self._past_of(facts["agent"])["dropped"] += 1

    def left(self, socket: ClientSocket) -> None:
        """A socket is gone; what it counted stays."""
        past, protocol = self._past_of(socket.record.agent), socket.outlet
        for key in _LASTING:
            past[key] += getattr(protocol, key)

    def _past_of(self, agent: str) -> _Values:
        return self._past.setdefault(self._label(agent), defaultdict(float))

    def _label(self, agent: str) -> str:
        if agent in self._past or len(self._past) < _MAX_CLASSES:
            return agent
        return OTHERS

    def describe(self) -> Iterable[Metric]:
        """Names only, so that the registry finds a second server's in the way."""
        yield from (_family(series, ["agent"]) for series in _BY_CLASS)
        yield from (_family(series, []) for series in _OF_ALL)

    def collect(self) -> Iterable[Metric]:
        """Every metric as it stands."""
        sums = self._sums()
        for series in _BY_CLASS:
            family = _family(series, ["agent"])
            for label, values in sums.items():
                family.add_metric([label], values[series.key])
            yield family
        links = self._downlink.links.values()
        of_all = {"links": len(links), "full": sum(link.full for link in links)}
        for series in _OF_ALL:
            family = _family(series, [])
            family.add_metric([], of_all[series.key])
            yield family

    def _sums(self) -> dict[str, _Values]:
        for agent in self._door.relay.served:
            self._past_of(agent)  # a class that is served is shown, if with zeros
        sums = {label: past.copy() for label, past in self._past.items()}
        for served in self._door.relay.served.values():
            values = sums[self._label(served.agent)]
            if served.host is None:
                values["parked"] += len(served.records)
            else:
                trip_s = getattr(served.host, "round_trip_s", None) or 0.0
                values["link_round_trip"] = max(values["link_round_trip"], trip_s)
        self._add_sockets(sums)
        self._add_requests(sums)
        return sums

    def _add_sockets(self, sums: dict[str, _Values]) -> None:
        trips: dict[str, list[float]] = {}
        for socket in self._door.sockets:
            label, protocol = self._label(socket.record.agent), socket.outlet
            values = sums.setdefault(label, defaultdict(float))
            values["connections"] += 1
            values["queued_bytes"] += protocol.queued_bytes
            for key in _LASTING:
                values[key] += getattr(protocol, key)
            if protocol.round_trip_s is not None:
                trips.setdefault(label, []).append(protocol.round_trip_s)
        for label, found in trips.items():
            sums[label]["round_trip"] = sum(found) / len(found)

    def _add_requests(self, sums: dict[str, _Values]) -> None:
        relay = self._door.relay
        latest = self._door.clock() + relay.limits.request_timeout_s
        for request in relay.requests.values():
            values = sums.setdefault(self._label(request.served.agent), defaultdict(float))
            values["requests"] += 1
            waited_s = latest - request.deadline
            values["oldest_request"] = max(values["oldest_request"], waited_s)


def _family(series: _Series, labels: list[str]) -> GaugeMetricFamily | CounterMetricFamily:
    return series.family(f"jupyter_agents_{series.name}", f"{series.help}.", labels=labels)
