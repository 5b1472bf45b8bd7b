"""Every limit is a documented, configurable trait, and reaches the part that keeps it."""

from __future__ import annotations

import dataclasses

import pytest
from traitlets import TraitError

from jupyter_agents.link.records import RelayLimits
from jupyter_agents.server.limits import Limits
from jupyter_agents.websocket.protocol import SocketOptions

TRAITS = Limits.class_own_traits()


@pytest.mark.parametrize("name", sorted(TRAITS))
def test_limit_is_documented_and_configurable(name):
    """A limit says in a sentence what it bounds, and a configuration file can change it."""
    trait = TRAITS[name]
    assert trait.metadata.get("config") is True
    assert trait.help.endswith(".")
    assert len(trait.help) > 30


SWITCHES = {"compression", "allow_links", "allow_public"}
NUMBERS = sorted(set(TRAITS) - SWITCHES)


@pytest.mark.parametrize("name", NUMBERS)
def test_limit_names_its_unit(name):
    """Bytes, seconds or a count: the name says which."""
    assert name.endswith(("_bytes", "_s")) or name.startswith("max_")


@pytest.mark.parametrize("name", NUMBERS)
def test_limit_is_never_negative(name):
    """A limit below zero is refused."""
    with pytest.raises(TraitError):
        Limits(**{name: -1})


def test_low_water_stays_below_high_water():
    """A link that begins to wait must be able to stop waiting."""
    assert Limits(link_high_bytes=100).link_water() == (100, 100)
    assert Limits(link_high_bytes=100, link_low_bytes=10).link_water() == (100, 10)


def test_relay_gets_its_limits():
    """Every limit of the relay that a server can set is set."""
    given = Limits(
        grace_s=1.0,
        waiting_bytes=2,
        waiting_total_bytes=3,
        request_timeout_s=4.0,
        max_requests=5,
        max_connections=6,
    ).relay_limits()
    assert given == RelayLimits(
        grace_s=1.0,
        waiting_bytes=2,
        waiting_total_bytes=3,
        request_timeout_s=4.0,
        max_requests=5,
        max_connections=6,
    )


def test_defaults_of_the_relay_are_ours():
    """Nobody meets other defaults by making a relay without a server."""
    ours, theirs = Limits().relay_limits(), RelayLimits()
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)


def test_socket_gets_its_limits():
    """Every limit of a WebSocket is set, compression only when it is on."""
    given = Limits(
        max_message_bytes=1,
        outbound_bytes=2,
        close_timeout_s=3.0,
        ping_interval_s=4.0,
        ping_timeout_s=5.0,
    ).socket_options()
    assert given == SocketOptions(
        max_message_bytes=1,
        max_queue_bytes=2,
        close_timeout_s=3.0,
        ping_interval_s=4.0,
        ping_timeout_s=5.0,
        compression=None,
    )
    assert Limits(compression=True).socket_options().compression is not None


@pytest.mark.parametrize(
    ("limits", "at_least"),
    [
        ({}, 64 * 2**20),
        ({"max_message_bytes": 100 * 2**20}, 100 * 2**20 + 70_000),
        ({"max_http_body_bytes": 100 * 2**20}, 100 * 2**20 + 70_000),
        ({"max_link_frame_bytes": 2 * 2**20}, 32 * 2**20 + 70_000),
    ],
)
def test_link_carries_whatever_a_client_may_send(limits, at_least):
    """The link's frames have room for the longest message or body, with its headers."""
    assert Limits(**limits).frame_bytes() >= at_least
