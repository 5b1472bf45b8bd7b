"""Tables in Markdown, a plot, and what became of each target of the project."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.hot_path import table
from benchmarks.targets import TARGETS

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.scenarios import Scenario, Special

HEADS = {
    "server us": "server CPU, µs",
    "kernel us": "kernel CPU, µs",
    "load us": "load CPU, µs",
    "per s": "per second",
    "p50 us": "p50, µs",
    "p99 us": "p99, µs",
    "max us": "longest, µs",
    "server KiB": "server, KiB each",
    "kernel KiB": "kernel, KiB each",
    "growth MiB": "memory growth, MiB",
    "p50 ratio": "p50 : without it",
    "cpu ratio": "CPU : alone",
    "deliveries per s": "deliveries per second",
    "lost": "lost, share",
    "kept": "slow one kept",
    "dumps us": "json.dumps and broadcast, CPU, µs",
    "patch us": "as a patch, CPU, µs",
    "whole : dumps": "state : json.dumps",
    "patch : dumps": "patch : json.dumps",
    "cpu us": "CPU, µs",
    "alone us": "CPU without the round trips, µs",
}


@dataclass
class Results:
    """What was measured: by scenario and subject, one dict of metrics for each round."""

    rounds: int
    seconds: float
    found: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    date: str = ""
    load: float = 0.0
    hot: dict[str, list[float]] = field(default_factory=dict)

    def add(
        self, scenario: Scenario | Special, found: dict[str, list[dict[str, float]]],
        names: dict[str, str], *, free: bool,
    ) -> None:  # fmt: skip
        """Keep one scenario's numbers."""
        self.found[scenario.name] = found
        self.names |= names
        self.about[scenario.name] = {"title": scenario.title, "per": scenario.per, "free": free}

    def median(self, scenario: str, subject: str, metric: str) -> float | None:
        """Over the rounds; None where it was not measured."""
        rounds = self.found.get(scenario, {}).get(subject, [])
        values = [one[metric] for one in rounds if metric in one]
        return statistics.median(values) if values else None

    def ratio(
        self, one: tuple[str, str], other: tuple[str, str], metric: str
    ) -> float | None:  # (scenario, subject) each
        """The median of the ratios within each round."""
        mine, theirs = (self.found.get(s, {}).get(who, []) for s, who in (one, other))
        pairs = [(a[metric], b[metric]) for a, b in zip(mine, theirs, strict=False)
                 if metric in a and b.get(metric)]  # fmt: skip
        return statistics.median(a / b for a, b in pairs) if pairs else None

    # -- Markdown ------------------------------------------------------------------------------

    def tables(self) -> str:
        """Everything."""
        parts = [
            f"{self.machine}. {', '.join(f'{n} {v}' for n, v in self.versions.items())}.",
            f"{self.date} UTC, load average at the start {self.load:g}. {self.rounds} rounds of "
            f"{self.seconds:g} s each, all subjects in turn in each round; medians over the "
            "rounds, and of the ratios within each round.",
            self.targets(),
            self.own_code(),
            self.generator(),
            *(self.table(name) for name in self.found),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def own_code(self) -> str:
        """What our own code takes, where that was measured."""
        if not self.hot:
            return ""
        return (
            "### Our own code alone\n\n`python -m benchmarks.hot_path`; the least of many short "
            "stretches of CPU time, without the operating system. The kernel's part is all of "
            f"it: read, `on_message`, answer, the turn's end.\n\n{table(self.hot)}"
        )

    def generator(self) -> str:
        """What the load generator took beside the servers: it must not be what is measured."""
        lines = []
        for scenario, about in self.about.items():
            own = self.median(scenario, "product", "load us")
            spent = self.median(scenario, "product", "cpu us")
            if own and spent and not about["free"]:
                alone = _number(1e6 / own)
                reached = _number(self.median(scenario, "product", "per s"))
                share = f"{100 * own / (own + spent):.0f} %"
                lines.append(f"| {about['title']} | {own:.2f} | {alone} | {reached} | {share} |")
        if not lines:
            return ""
        head = [
            "### The load generator", "",
            "Its CPU time beside the product, what it could do if servers cost nothing, what was "
            "reached, and its share of the one CPU that all shared. The rates below contain it, "
            "for everybody alike; the CPU columns do not.", "",
            "| | its CPU, µs | its limit, per second | reached | share |",
            "|---|--:|--:|--:|--:|",
        ]  # fmt: skip
        return "\n".join([*head, *lines])

    def table(self, scenario: str) -> str:
        """One scenario: a line for each subject."""
        about, found = self.about[scenario], self.found[scenario]
        metrics = {m for rounds in found.values() for one in rounds for m in one}
        columns = [m for m in HEADS if m in metrics and m not in ("max us", "cpu us")]
        if scenario in ("crowd", "busy", "busy-eager"):
            columns.append("max us")
        if scenario == "state-1m":
            columns.insert(0, "cpu us")
        where = "where the scheduler likes" if about["free"] else "all on one CPU"
        lines = [
            f"### {about['title']}",
            f"`{scenario}`; per {about['per']}; {where}.",
            f"| | {' | '.join(HEADS[m] for m in columns)} | CPU, product : it |",
            "|---|" + "--:|" * (len(columns) + 1),
        ]
        for subject, rounds in found.items():
            if rounds:
                cells = [_number(self.median(scenario, subject, m)) for m in columns]
                ratio = self.ratio((scenario, "product"), (scenario, subject), "cpu us")
                shown = "" if subject == "product" or ratio is None else f"{ratio:.2f}"
                name = self.names[subject]
                name = f"**{name}**" if subject == "product" else name
                lines.append(f"| {name} | {' | '.join(cells)} | {shown} |")
        return "\n".join([lines[0], "", lines[1], "", *lines[2:]])

    def targets(self) -> str:
        """Each target whose scenarios were run, and whether it was met."""
        lines = []
        for target in TARGETS:
            value = target.value(self)
            if value is not None:
                mark = "met" if target.is_met(value) else "**missed**"
                shown = f"{target.op} {target.bound:g}"
                lines.append(f"| {target.row} | {target.text} | {shown} | {value:.3g} | {mark} |")
        if not lines:
            return ""
        head = ["### Targets", "", "| row | | target | measured | |", "|--:|---|--:|--:|---|"]
        return "\n".join([*head, *lines])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def plot(results: Results, path: Path) -> None:
    """Draw CPU time per message for each scenario that has any, on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "jupyter_agents"
    from matplotlib import pyplot as plt

    shown = [name for name in PLOTTED if name in results.found]
    figure, axes = plt.subplots(
        (len(shown) + 1) // 2, 2, figsize=(11, 1.2 + 1.9 * ((len(shown) + 1) // 2)),
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for name, axis in zip(shown, axes.flat, strict=False):
        _bars(results, name, axis)
    figure.suptitle("CPU µs per message or delivery, all processes; shorter is better")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


PLOTTED = ("round-trip", "echo", "echo-1000", "fan-out-100", "fan-out-1000", "fan-out-burst",
           "call", "state")  # fmt: skip


def _bars(results: Results, scenario: str, axis: Any) -> None:
    measured = {
        subject: value
        for subject in results.found[scenario]
        if (value := results.median(scenario, subject, "cpu us")) is not None
    }
    order = sorted(measured, key=lambda subject: -measured[subject])
    colours = ["#e46e2e" if subject == "product" else "#9aa7b1" for subject in order]
    bars = axis.barh(
        [results.names[s] for s in order], [measured[s] for s in order], color=colours
    )
    axis.bar_label(bars, [_number(measured[s]) for s in order], padding=3, fontsize=8)
    axis.set_title(results.about[scenario]["title"], fontsize=10)
    axis.set_xscale("log")
    axis.margins(x=0.15)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
