"""docs/performance.md: what a run found, written between two marks of the page.

    python -m benchmarks --page                 # measure, keep the numbers, write page and plot
    python -m benchmarks --page --load FILE     # write them from numbers that were kept

`tests/test_performance.py` holds the page against `results.json`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path

from benchmarks.report import Results, plot

HERE = Path(__file__).parent
KEPT = HERE / "results.json"
PAGE = HERE.parent / "docs" / "performance.md"
PLOT = HERE.parent / "docs" / "images" / "performance.svg"
BEGIN = "<!-- results, made by python -m benchmarks --page -->"
END = "<!-- end -->"
PACKAGES = (
    "tornado", "jupyter_server", "ipykernel", "msgspec", "websockets", "aiohttp", "starlette",
    "uvicorn", "uvloop", "httptools", "picows", "python-socketio",
)  # fmt: skip


def machine() -> str:
    """What it ran on, without the machine's name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    virtual = ""
    if cpuinfo.exists():
        text = cpuinfo.read_text()
        names = [x for x in text.splitlines() if x.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
        virtual = ", virtual" if "hypervisor" in text else ""
    system = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    return f"{os.cpu_count()} × {model}{virtual}; {system}; Python {platform.python_version()}"


def versions() -> dict[str, str]:
    """Of everybody that is compared."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    workerd = HERE / "workerd" / "package.json"
    wanted = json.loads(workerd.read_text(encoding="utf-8"))["dependencies"]
    if (HERE / "workerd" / "node_modules").is_dir():
        found |= {"agents (npm)": wanted["agents"], "workerd": wanted["workerd"]}
    return found


def keep(results: Results, path: Path) -> None:
    """Write down everything that was measured."""
    raw = {
        "machine": results.machine, "versions": results.versions, "date": results.date,
        "load": results.load, "rounds": results.rounds, "seconds": results.seconds,
        "about": results.about, "names": results.names,
        "hot": {name: [_short(us) for us in found] for name, found in results.hot.items()},
        "found": {
            scenario: {
                subject: [{m: _short(v) for m, v in one.items()} for one in rounds]
                for subject, rounds in subjects.items()
            }
            for scenario, subjects in results.found.items()
        },
    }  # fmt: skip
    lines = json.dumps(raw, ensure_ascii=False).replace('}, "', '},\n"')
    path.write_text(lines + "\n", encoding="utf-8")


def kept(path: Path) -> Results:
    """Read it back."""
    return Results(**json.loads(path.read_text(encoding="utf-8")))


def fresh(rounds: int, seconds: float) -> Results:
    """Nothing measured yet, on this machine, now."""
    return Results(
        rounds, seconds, machine=machine(), versions=versions(),
        date=time.strftime("%Y-%m-%d %H:%M", time.gmtime()), load=_load(),
    )  # fmt: skip


def _load() -> float:
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def written(page: str, results: Results) -> str:
    """The page with these results in it."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{results.tables()}\n{END}{after}"


def write_page(results: Results) -> None:
    """Write page and plot."""
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    plot(results, PLOT)
