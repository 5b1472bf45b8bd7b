"""The package's own sources, read with ast: what the checks of the source tree look at."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "jupyter_agents"


@dataclass(frozen=True)
class Import:
    """One imported module: `lazy` inside a function, `typing` when only a checker reads it."""

    target: str
    line: int
    lazy: bool
    typing: bool


@dataclass(frozen=True)
class Module:
    """One source file and its dotted name below the package, such as ``protocol.names``."""

    path: Path
    name: str

    @property
    def room(self) -> str:
        """The folder, or the module itself where it stands at the top; "" is the package's own."""
        return self.name.partition(".")[0]

    @cached_property
    def text(self) -> str:
        """The source."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return ast.parse(self.text, str(self.path))

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every import, absolute, ours down to the module (``jupyter_agents.link.frames``)."""
        return tuple(self._walk(self.tree, lazy=False, typing=False))

    def where(self, line: int) -> str:
        """``jupyter_agents/link/frames.py:12``, to jump to."""
        return f"{self.path.relative_to(ROOT)}:{line}"

    def _walk(self, node: ast.AST, *, lazy: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, lazy, typing)
            elif isinstance(child, ast.ImportFrom):
                for target in self._targets(child):
                    yield Import(target, child.lineno, lazy, typing)
            inner = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            checked = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            yield from self._walk(child, lazy=lazy or inner, typing=typing or checked)

    def _targets(self, node: ast.ImportFrom) -> Iterator[str]:
        base = node.module or ""
        if node.level:
            package = f"{PACKAGE}.{self.name}".split(".")
            parents = package[: len(package) - node.level]
            if self.path.name == "__init__.py":
                parents = package[: len(package) - node.level + 1]
            base = ".".join([*parents, *([node.module] if node.module else [])])
        for alias in node.names:
            yield f"{base}.{alias.name}" if _is_module(f"{base}.{alias.name}") else base


def _is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return dotted.startswith(PACKAGE) and (path.with_suffix(".py").is_file() or path.is_dir())


def modules() -> tuple[Module, ...]:
    """Every module of the package; a room's ``__init__`` has the room's name, the package's ""."""
    found = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        if parts[0] != "labextension":
            found.append(Module(path, ".".join(p for p in parts if p != "__init__")))
    return tuple(found)
