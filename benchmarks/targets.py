"""The project's targets, as ratios within one run; `report.py` says which were met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.report import Results


@dataclass(frozen=True)
class Target:
    """One bound.

    Parameters
    ----------
    row : int
        Its number in the list of targets.
    text : str
        What is compared.
    bound : float
        What must not be passed.
    scenario, metric : str
        What is looked at.
    versus : str
        The subject it is compared with; "" compares with nothing, and "share" with the total CPU.
    op : str
        On which side of the bound is fine.
    among : str
        The scenario of the other, where it is not the same.
    """

    row: int
    text: str
    bound: float
    scenario: str
    metric: str = "cpu us"
    versus: str = "tornado"
    op: str = "≤"
    among: str = ""
    by: str = "product"

    def value(self, results: Results) -> float | None:
        """What came out; None where it was not measured."""
        if not self.versus:
            return results.median(self.scenario, self.by, self.metric)
        if self.versus == "share":
            part = results.median(self.scenario, self.by, self.metric)
            whole = results.median(self.scenario, self.by, "cpu us")
            return part / whole if part is not None and whole else None
        other = (self.among or self.scenario, self.versus)
        return results.ratio((self.scenario, self.by), other, self.metric)

    def is_met(self, value: float) -> bool:
        """Whether that is on the right side."""
        return value <= self.bound if self.op == "≤" else value >= self.bound


COMPARED = (("c", "C"), ("tornado", "Tornado"), ("starlette", "Starlette"), ("aiohttp", "aiohttp"),
            ("workerd", "workerd"))  # fmt: skip

TARGETS: tuple[Target, ...] = (
    Target(1, "round trip, CPU : Tornado", 1.7, "round-trip"),
    Target(3, "round trip, p50 : Tornado", 1.9, "round-trip-free", "p50 us"),
    Target(3, "round trip, p50 : workerd", 0.9, "round-trip-free", "p50 us", "workerd"),
    Target(4, "comm round trip, p50 : ours", 200, "comm", "p50 us", "product", "≥",
           "round-trip-free"),
    Target(4, "comm with quick ACKs, p50 : ours", 10, "comm-quick", "p50 us", "product", "≥",
           "round-trip-free"),
    Target(4, "comm with quick ACKs, CPU : ours", 12, "comm-quick", "cpu us", "product", "≥",
           "round-trip-free"),
    Target(5, "echo 16 × 16, CPU : Tornado", 0.2, "echo"),
    Target(5, "echo 16 × 16, rate : Tornado", 6, "echo", "per s", op="≥"),
    Target(5, "echo 16 × 16, rate : Starlette", 3.5, "echo", "per s", "starlette", "≥"),
    Target(5, "echo 16 × 16, rate : workerd", 12, "echo", "per s", "workerd", "≥"),
    Target(5, "echo 16 × 16, rate : aiohttp", 2.5, "echo", "per s", "aiohttp", "≥"),
    Target(6, "echo 16 × 16, p99 : Tornado", 0.1, "echo", "p99 us"),
    Target(7, "echo 1000 × 1, CPU : Tornado", 0.5, "echo-1000"),
    Target(7, "echo 1000 × 1, CPU : Starlette", 0.5, "echo-1000", versus="starlette"),
    *(Target(row, f"broadcast to {crowd}, CPU : {who}", bound, f"fan-out-{crowd}", versus=key)
      for row, crowd, bounds in ((8, 100, (1.5, 0.4, 0.8, 1.0, 0.3)),
                               (9, 1000, (1.6, 0.3, 0.7, 1.0, 0.3)))
      for (key, who), bound in zip(COMPARED, bounds, strict=True)),
    Target(10, "broadcast to 5000, CPU : C", 1.5, "fan-out-5000", versus="c"),
    Target(10, "broadcast to 5000, time to the last : Tornado", 0.25, "fan-out-5000", "p50 us"),
    Target(10, "broadcast to 5000, time to the last : workerd", 0.45, "fan-out-5000", "p50 us",
           "workerd"),
    *(Target(11, f"stretch: broadcast to {crowd}, CPU : C", 1.2, f"fan-out-{crowd}", versus="c")
      for crowd in (1000, 5000)),
    Target(12, "burst of 8, deliveries : C", 3, "fan-out-burst", "per s", "c", "≥"),
    Target(12, "burst of 8, deliveries : Starlette", 5, "fan-out-burst", "per s", "starlette", "≥"),
    Target(12, "burst of 8, deliveries : Tornado", 12, "fan-out-burst", "per s", "tornado", "≥"),
    Target(12, "burst of 8, deliveries : workerd", 10, "fan-out-burst", "per s", "workerd", "≥"),
    Target(13, "kernel's share of a broadcast to 100", 0.06, "fan-out-100", "kernel us", "share"),
    Target(13, "kernel's share of a broadcast to 1000", 0.03, "fan-out-1000", "kernel us", "share"),
    Target(14, "echo of 64 KiB 4 × 4, rate : Tornado", 0.85, "echo-64k", "per s", op="≥"),
    Target(14, "echo of 64 KiB 4 × 4, CPU : Tornado", 1.5, "echo-64k"),
    Target(14, "round trip of 1 MiB, p50 : Tornado", 2.2, "round-trip-1m", "p50 us"),
    Target(15, "idle connection in the server, KiB", 8, "scale", "server KiB", ""),
    Target(15, "idle connection : WebSocketHandler in Jupyter", 0.4, "scale", "server KiB",
           "handler"),
    Target(15, "idle connection : workerd", 0.1, "scale", "server KiB", "workerd"),
    Target(15, "idle connection in the kernel, KiB", 4, "scale", "kernel KiB", ""),
    Target(16, "set-up rate : WebSocketHandler in Jupyter", 1.1, "scale", "per s", "handler", "≥"),
    Target(16, "set-up rate : Tornado", 0.4, "scale", "per s", "tornado", "≥"),
    Target(17, "slow member: memory growth, MiB", 16, "slow", "growth MiB", ""),
    Target(17, "slow member: others' p50 : without it", 1.15, "slow", "p50 ratio", ""),
    Target(17, "slow member: kept", 0, "slow", "kept", ""),
    Target(18, "longest round trip beside a room of 5000, µs", 15_000, "crowd", "max us", ""),
    Target(19, "spinning cell, p50, µs", 8_000, "busy", "p50 us", ""),
    Target(19, "spinning cell, 0.5 ms switch interval, p50, µs", 1_200, "busy-eager", "p50 us", ""),
    Target(20, "cell loop to 10, rate : comm", 15, "cell", "per s", "product", "≥", "comm-cell"),
    Target(20, "cell loop to 10, deliveries : comm", 40, "cell", "deliveries per s", "product",
           "≥", "comm-cell"),
    Target(20, "cell loop to 10, lost", 0, "cell", "lost", ""),
    Target(21, "CPU among 10 000 idle connections : alone", 1.15, "flat-idle", "cpu ratio", ""),
    Target(21, "CPU among 10 000 agents : alone", 1.15, "flat-agents", "cpu ratio", ""),
    Target(22, "compressed 10 KB to 100, CPU : uncompressed", 1.3, "fan-out-10k",
           versus="product", by="deflate"),
    Target(23, "state of 1 MB to 100, CPU : json.dumps and broadcast", 0.7, "state-1m",
           "whole : dumps", ""),
    Target(23, "the same as a patch", 0.15, "state-1m", "patch : dumps", ""),
    Target(22, "compressed 10 KB to 100, CPU : Tornado's", 0.2, "fan-out-10k",
           versus="tornado-deflate", by="deflate"),
)  # fmt: skip
