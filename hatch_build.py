"""Puts the built JupyterLab side bar into the wheel, and never stands in the way of an install.

Assets there: ship them. npm there: build them (about 20 s). Neither: install everything but the
side bar and say so. ``JUPYTER_AGENTS_SKIP_LABEXTENSION=1`` skips the build,
``JUPYTER_AGENTS_REQUIRE_LABEXTENSION=1`` makes a missing side bar an error; an sdist always
requires it, as it is what releases are made of.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHARE = "share/jupyter/labextensions/jupyter-agents"


class LabExtensionHook(BuildHookInterface):
    """The custom build hook that ``pyproject.toml`` names."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the side bar if possible and needed, and list it among the wheel's data files."""
        assets = Path(self.root, "jupyter_agents", "labextension")
        if not (assets / "package.json").is_file() and not _is_set("SKIP_LABEXTENSION"):
            self._build()
        if not (assets / "package.json").is_file():
            self._do_without()
        elif self.target_name == "wheel":
            build_data["shared_data"][str(assets)] = SHARE

    def _build(self) -> None:
        source = Path(self.root, "labextension")
        npm = shutil.which("npm")
        if npm is None or not (source / "package-lock.json").is_file():
            return
        for arguments in (
            ["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            ["run", "build:prod"],
        ):
            done = subprocess.run([npm, *arguments], cwd=source, check=False)
            if done.returncode:
                self.app.display_warning(f"npm {arguments[0]} failed in {source}")
                return

    def _do_without(self) -> None:
        if self.target_name == "sdist" or _is_set("REQUIRE_LABEXTENSION"):
            raise RuntimeError(
                "The JupyterLab side bar is not built: install Node.js 20 or newer with npm, "
                "then run `make js`"
            )
        self.app.display_warning(
            "jupyter_agents is installed without its JupyterLab side bar (that needs Node.js 20 "
            "or newer with npm, or a released wheel); everything else works"
        )


def _is_set(name: str) -> bool:
    return os.environ.get(f"JUPYTER_AGENTS_{name}", "") not in ("", "0")
