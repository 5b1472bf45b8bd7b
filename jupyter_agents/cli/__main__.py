"""``python -m jupyter_agents.cli`` is ``jupyter agents``."""

from __future__ import annotations

from jupyter_agents.cli.command import main

if __name__ == "__main__":
    raise SystemExit(main())
