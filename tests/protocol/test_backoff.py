"""Waiting before a reconnect: `jupyter_agents.protocol.backoff`."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_agents.protocol.backoff import Backoff, ReconnectPolicy

FULL = 0.999999


def waits(
    backoff: Backoff, count: int, *, code: int = 1006, share: float = 1.0
) -> list[float | None]:
    """What `count` attempts in a row, all failing with `code`, wait for."""
    found = []
    for _ in range(count):
        backoff.lost(0.0, code)
        delay = backoff.delay(share)
        found.append(None if delay is None else round(delay, 3))
    return found


def test_delay_without_jitter_follows_the_sdk() -> None:
    """Without jitter the waits are the SDK client's: 3 s x 1.3^n, capped at 10 s."""
    backoff = Backoff(ReconnectPolicy(jitter=False))
    assert waits(backoff, 6, share=0.1) == [3.0, 3.9, 5.07, 6.591, 8.568, 10.0]


@given(st.floats(0, FULL), st.integers(1, 40))
def test_delay_with_jitter_stays_below_the_bound(share: float, retry: int) -> None:
    """Full jitter: a wait is the given share of its bound, from nothing to all of it."""
    policy = ReconnectPolicy(min_delay=1, max_delay=20, grow=2)
    backoff = Backoff(policy)
    backoff.retries = retry - 1
    assert backoff.delay(share) == pytest.approx(share * policy.bound(retry))


@given(st.integers(1, 10_000_000))
def test_bound_never_falls_nor_overflows(retry: int) -> None:
    """A later retry never has a shorter bound, and none exceeds `max_delay`."""
    policy = ReconnectPolicy(min_delay=1, max_delay=20, grow=2)
    assert policy.bound(retry) <= policy.bound(retry + 1) <= 20


def test_delay_after_1012_is_nothing_once() -> None:
    """After a restart the client returns at once, but once: the server may be slow to start."""
    backoff = Backoff(ReconnectPolicy(jitter=False))
    assert waits(backoff, 3, code=1012) == [0.0, 3.9, 5.07]


def test_delay_after_1013_is_long_even_for_the_luckiest() -> None:
    """After "try again later" nobody returns before half of the longest wait."""
    backoff = Backoff(ReconnectPolicy())
    backoff.lost(0.0, 1013)
    assert backoff.delay(0.0) == 5.0
    backoff.lost(0.0, 1013)
    assert backoff.delay(FULL) == pytest.approx(10.0, abs=0.01)


@pytest.mark.parametrize(("uptime", "expected"), [(4.9, 3.9), (5.0, 3.0), (500.0, 3.0)])
def test_lost_starts_over_only_after_min_uptime(uptime: float, expected: float) -> None:
    """A connection that dies young keeps the waits growing; one that lasted resets them (T139)."""
    backoff = Backoff(ReconnectPolicy(jitter=False))
    waits(backoff, 1)
    backoff.opened(100.0)
    backoff.lost(100.0 + uptime)
    assert backoff.delay(0.0) == pytest.approx(expected)


def test_lost_counts_uptime_of_one_connection_only() -> None:
    """The time since an older connection opened does not count as uptime of a failed attempt."""
    backoff = Backoff(ReconnectPolicy(jitter=False))
    backoff.opened(0.0)
    backoff.lost(1.0)
    assert backoff.delay(0.0) == 3.0
    backoff.lost(100.0)
    assert backoff.delay(0.0) == pytest.approx(3.9)


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_delay_ends_after_max_retries(limit: int) -> None:
    """Exactly `max_retries` attempts are made (T138)."""
    found = waits(Backoff(ReconnectPolicy(max_retries=limit)), limit + 2, share=0.5)
    assert [delay is None for delay in found] == [False] * limit + [True, True]


def test_reset_starts_again_from_zero() -> None:
    """A user's wish to reconnect gives all retries back and forgets the last code (T138)."""
    backoff = Backoff(ReconnectPolicy(max_retries=1, jitter=False))
    waits(backoff, 2, code=1013)
    backoff.reset()
    assert backoff.delay(0.0) == 3.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_delay": -1},
        {"max_delay": math.inf},
        {"min_delay": 5, "max_delay": 4},
        {"min_delay": 11},
        {"grow": 0.9},
        {"grow": math.nan},
        {"connect_timeout": 0},
        {"max_retries": -1},
        {"max_queued": -1},
        {"max_queued_bytes": -1},
        {"min_uptime": math.nan},
    ],
)
def test_policy_refuses_what_cannot_work(wrong: dict[str, Any]) -> None:
    """A nonsensical setting is refused where it is written, by name, defaults included."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ReconnectPolicy(**wrong)
