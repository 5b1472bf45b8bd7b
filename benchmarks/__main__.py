"""Measure the product and its peers side by side, on this machine.

    python -m benchmarks                          # everything, 30 minutes or so
    python -m benchmarks --what round-trip,echo   # a part
    python -m benchmarks --peers tornado,c --rounds 3 --seconds 0.3
    python -m benchmarks --out numbers.json --plot picture.svg
    python -m benchmarks --page                   # everything, into docs/performance.md

Each round runs all subjects in turn, every second one in the opposite order; the tables show
medians over the rounds, and medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import hot_path
from benchmarks.page import KEPT, fresh, keep, kept, write_page
from benchmarks.report import Results, plot
from benchmarks.scenarios import SCENARIOS
from benchmarks.subjects import all_subjects, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.scenarios import Scenario, Special
    from benchmarks.subjects import Subject


def options() -> argparse.Namespace:
    """Read the command line."""
    names = ", ".join(one.name for one in SCENARIOS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--what", default="", help=f"some of: {names}")
    parser.add_argument("--peers", default="", help=f"some of: {', '.join(all_subjects())}")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="keep the raw numbers in this file")
    parser.add_argument("--load", type=Path, help="measure nothing, show a file of --out")
    parser.add_argument("--plot", type=Path, help="draw into this file, SVG or PNG")
    parser.add_argument(
        "--page",
        action="store_true",
        help="write docs/performance.md, its plot, and benchmarks/results.json",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--free", action="store_true", help="no process bound to a CPU, ever")
    where.add_argument("--pinned", action="store_true", help="all on one CPU, always")
    return parser.parse_args()


def say(text: str, end: str = "\n") -> None:
    """Show progress where results do not go."""
    print(text, end=end, file=sys.stderr, flush=True)


@contextlib.contextmanager
def started(wanted: set[str]) -> Iterator[dict[str, Subject]]:
    """Start those subjects that can be; the others are named with the reason."""
    running: dict[str, Subject] = {}
    try:
        for key, subject in all_subjects().items():
            if key not in wanted:
                continue
            if reason := subject.why_not():
                say(f"without {subject.name}: {reason}")
                continue
            say(f"starting {subject.name}")
            subject.start()
            running[key] = subject
        yield running
    finally:
        for subject in running.values():
            subject.stop()


def measure(
    scenario: Scenario | Special, subjects: dict[str, Subject], rounds: int, seconds: float
) -> dict[str, list[dict[str, float]]]:
    """Run one scenario's rounds; a subject that fails at it is left out and named."""
    found: dict[str, list[dict[str, float]]] = {key: [] for key in subjects}
    is_much = getattr(scenario, "connections", 0) * len(subjects) > _files() // 2
    with contextlib.ExitStack() as stack:
        ready: dict[str, Callable[[float], dict[str, float]]] = {}
        for key, subject in subjects.items():
            say(f"\r\033[K{scenario.name}: connecting to {subject.name}", end="")
            try:
                if is_much:  # for more than a process may have open: each connects in its turn
                    ready[key] = functools.partial(_connect_and_measure, scenario, subject)
                else:
                    ready[key] = stack.enter_context(scenario.ready(subject))
            except Exception as error:
                say(f"\r\033[K{scenario.name}: {subject.name} failed: {error!r}")
                del found[key]
        for number in range(rounds):
            for key in list(ready) if number % 2 else reversed(list(ready)):
                name = subjects[key].name
                say(f"\r\033[K{scenario.name}: round {number + 1}/{rounds}, {name}", end="")
                try:
                    found[key].append(ready[key](seconds))
                except Exception as error:
                    say(f"\r\033[K{scenario.name}: {name} failed: {error!r}")
                    del ready[key], found[key]
    return found


def _connect_and_measure(
    scenario: Scenario | Special, subject: Subject, seconds: float
) -> dict[str, float]:
    with scenario.ready(subject) as work:
        return work(seconds)


def _files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def bind(subjects: dict[str, Subject], *, free: bool) -> None:
    """Have everything run on one CPU, or on all."""
    cpus = set(range(os.cpu_count() or 1))
    where = cpus if free else {max(cpus)}
    place([os.getpid(), *(pid for one in subjects.values() for pid in one.pids.values())], where)


def allow_many_files(wanted: int = 65_536) -> None:
    """Have room for 5000 connections to each subject; the subjects inherit it."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, most), max(wanted, most)))
    except (ValueError, OSError):  # only root may raise it
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run(asked: argparse.Namespace) -> Results:
    """Measure what was asked for."""
    what = {name for name in asked.what.split(",") if name}
    unknown = what - {one.name for one in SCENARIOS}
    if unknown:
        sys.exit(f"No such scenario: {', '.join(unknown)}")
    chosen = [one for one in SCENARIOS if not what or one.name in what]
    allow_many_files()
    wanted = set(asked.peers.split(",")) if asked.peers else set(all_subjects())
    wanted &= {name for one in chosen for name in one.who}
    results = fresh(asked.rounds, asked.seconds)
    with started(wanted | {"product"}) as subjects:
        for number, scenario in enumerate(chosen, 1):
            free = asked.free or (scenario.free and not asked.pinned)
            bind(subjects, free=free)
            begin = time.perf_counter()
            able = {key: one for key, one in subjects.items() if key in scenario.who}
            found = measure(scenario, able, asked.rounds, asked.seconds)
            names = {key: one.name for key, one in able.items()}
            results.add(scenario, found, names, free=free)
            if asked.out:
                keep(results, asked.out)
            took = time.perf_counter() - begin
            say(f"\r\033[K[{number}/{len(chosen)}] {scenario.title}: {took:.0f} s")
    if not what:
        say("our own code alone")
        results.hot = asyncio.run(hot_path.measured())
        if asked.out:
            keep(results, asked.out)
    return results


def main() -> None:
    """Measure and report."""
    asked = options()
    if asked.page and not asked.load:
        asked.out = asked.out or KEPT
    results = kept(asked.load) if asked.load else run(asked)
    print(results.tables())
    if asked.plot:
        plot(results, asked.plot)
    if asked.page:
        write_page(results)


if __name__ == "__main__":
    main()
