"""A notebook run from top to bottom in a kernel that no Jupyter Server knows."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from nbclient import NotebookClient

from scripts.jupyter_process import ROOT

LIMIT_S = 60


@pytest.fixture
def no_jupyter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment where no Jupyter Server, no setting and no stored agent is to be found."""
    for name in [name for name in os.environ if name.startswith(("JUPYTER", "JPY_"))]:
        monkeypatch.delenv(name)
    for name in ("CONFIG", "DATA", "RUNTIME"):
        monkeypatch.setenv(f"JUPYTER_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # as in an activated environment
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    python_path = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(python_path))
    return tmp_path


def run(notebook: Any, folder: Path) -> None:
    """Run every cell in `folder`; the outputs are in the notebook then, an error is raised."""
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=LIMIT_S, resources=place, kernel_name="python3").execute()
