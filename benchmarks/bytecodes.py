"""How many of Python's bytecodes run for a message, function by function, in our own code.

    python -m benchmarks.bytecodes                    # an echo, in all three stretches
    python -m benchmarks.bytecodes --what "call and result" --top 30

Between two processes that share a core, a message that comes alone finds the processor's caches
and branch predictors cold, and costs about as much as bytecodes run for it: some 20 ns each,
where the same code in a loop takes 8. So this count says, on any machine and however busy it is,
where a round trip's time goes. asyncio's own part is not in it: 300 a turn of its loop, two turns
in the server and one in the kernel.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.hot_path import PATHS, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

HERE = str(Path(__file__).parents[1])


def counted(work: Callable[[], object]) -> Counter[CodeType]:
    """Bytecodes by function; the second time, when all is warm."""
    found: Counter[CodeType] = Counter()

    def step(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            found[frame.f_code] += 1
        return step

    def enter(frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    work()
    before = sys.gettrace()
    sys.settrace(enter)
    try:
        work()
    finally:
        sys.settrace(before)
    return Counter({code: n for code, n in found.items() if code.co_filename.startswith(HERE)})


def _named(code: CodeType) -> str:
    path = Path(code.co_filename).relative_to(HERE)
    return f"{path}:{code.co_firstlineno} {getattr(code, 'co_qualname', code.co_name)}"


async def shown(what: str, top: int) -> None:
    """Print a table for each stretch of one path."""
    name, members, frames, per, _ = next(path for path in PATHS if path[0] == what)
    async with opened(members) as path:
        for stretch, work in path.stretches(frames).items():
            found = counted(work)
            for code in [code for code in found if "benchmarks" in code.co_filename]:
                del found[code]
            print(f"\n{name}; {stretch}: {sum(found.values()) / per:.0f}")
            for code, count in found.most_common(top):
                print(f"{count / per:8.1f}  {_named(code)}")


def main() -> None:
    """Count one path."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    names = [path[0] for path in PATHS]
    parser.add_argument("--what", choices=names, default=names[0])
    parser.add_argument("--top", type=int, default=12)
    asked = parser.parse_args()
    asyncio.run(shown(asked.what, asked.top))


if __name__ == "__main__":
    main()
