"""When a client comes back after its connection ended: how long it waits, and when it gives up.

Promises full jitter (a thousand clients of one server do not return in step), an immediate
return after 1012 (the server restarts) and a longer wait after 1013 (it is overloaded). Must
not know a clock or dice: the time and one random number come in as arguments. Its other half is
`client.client`, which does the waiting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jupyter_agents.protocol.closing import ABNORMAL, SERVICE_RESTART, TRY_AGAIN_LATER

__all__ = ["Backoff", "ReconnectPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectPolicy:
    """How a client returns after a loss, and how much it keeps for later meanwhile.

    Parameters
    ----------
    min_delay, max_delay : float
        Bounds of the first wait and of every wait, in seconds. With jitter a wait lies anywhere
        between 0 and its bound.
    grow : float
        By what each bound exceeds the one before.
    jitter : bool
        False waits for the whole bound, as the SDK's clients do.
    min_uptime : float
        Seconds that a connection must last before the bounds start again from `min_delay`.
    connect_timeout : float
        Seconds that one attempt may take.
    max_retries : int or None
        Attempts after a loss before giving up; None never gives up, 0 never returns.
    max_queued, max_queued_bytes : int
        What may wait for the connection: messages, calls and writes together. Beyond it `send`
        returns False, and calls and writes fail with `CallAborted` (not transmitted). While
        connected, `max_queued_bytes` bounds what the socket has not taken yet.
    """

    min_delay: float = 3.0
    max_delay: float = 10.0
    grow: float = 1.3
    jitter: bool = True
    min_uptime: float = 5.0
    connect_timeout: float = 4.0
    max_retries: int | None = None
    max_queued: int = 1000
    max_queued_bytes: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        """Refuse what could never work, at once and by name."""
        for name in ("min_delay", "max_delay", "min_uptime", "max_queued", "max_queued_bytes"):
            _check_finite(name, getattr(self, name), at_least=0)
        _check_finite("grow", self.grow, at_least=1)
        _check_finite("connect_timeout", self.connect_timeout, at_least=0.001)
        _check_finite("max_retries", self.max_retries or 0, at_least=0)
        if self.max_delay < self.min_delay:
            raise ValueError(
                f"max_delay ({self.max_delay}) is less than min_delay ({self.min_delay})"
            )

    def bound(self, retry: int) -> float:
        """Give the longest wait in seconds before the retry with this number (from 1)."""
        try:
            return min(self.max_delay, self.min_delay * float(self.grow) ** (retry - 1))
        except OverflowError:
            return self.max_delay


class Backoff:
    """Counts one client's attempts and says how long to wait for the next.

    Attributes
    ----------
    retries : int
        Attempts since the last connection that lasted `ReconnectPolicy.min_uptime`.
    """

    def __init__(self, policy: ReconnectPolicy) -> None:
        self.policy = policy
        self.retries = 0
        self._opened_at: float | None = None
        self._code = ABNORMAL

    def opened(self, now: float) -> None:
        """Note that an attempt succeeded at `now`, in seconds of any steady clock."""
        self._opened_at = now

    def lost(self, now: float, code: int = ABNORMAL) -> None:
        """Note that a connection, or an attempt at one, ended at `now` with a close code."""
        # Only a connection that lasted proves that the server is well: one that opens and dies
        # at once must not be hammered.
        if self._opened_at is not None and now - self._opened_at >= self.policy.min_uptime:
            self.retries = 0
        self._opened_at = None
        self._code = code

    def delay(self, random_value: float) -> float | None:
        """Count one more attempt and give the wait before it.

        Parameters
        ----------
        random_value : float
            At least 0 and less than 1.

        Returns
        -------
        float or None
            Seconds, or None when the retries are spent.
        """
        if self.policy.max_retries is not None and self.retries >= self.policy.max_retries:
            return None
        self.retries += 1
        share = random_value if self.policy.jitter else 1.0
        if self._code == SERVICE_RESTART and self.retries == 1:
            return 0.0
        if self._code == TRY_AGAIN_LATER:
            # Never less than half of the longest wait, but still spread.
            return self.policy.max_delay * (1 + share) / 2
        return self.policy.bound(self.retries) * share

    def reset(self) -> None:
        """Start to count anew, as after a wish of the user to reconnect."""
        self.retries = 0
        self._opened_at = None
        self._code = ABNORMAL


def _check_finite(name: str, value: float, *, at_least: float) -> None:
    if not (math.isfinite(value) and value >= at_least):
        raise ValueError(f"{name} must be a number of at least {at_least:g}, not {value!r}")
