"""``make demo``: the first notebook in JupyterLab, or with ``--headless`` a proof that it works.

Headless, nothing is faked: a real Jupyter Server starts a kernel for the notebook as a browser
would, runs its cells, and this process talks to the agent over its WebSocket meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import webbrowser
from contextlib import closing
from pathlib import Path

import websocket

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.jupyter_process import JupyterProcess, JupyterProcessError, free_port  # noqa: E402

NOTEBOOK = "00_hello.ipynb"
PLAYGROUND = ROOT / ".demo"
GREETING = "hello from make demo"


def main() -> int:
    """Run the demo; 0 when all went well."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=…", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--headless", action="store_true", help="prove it works, without a browser"
    )
    if not parser.parse_args().headless:
        return show()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            prove(Path(home))
    except JupyterProcessError as problem:
        print(f"\nThe demo failed: {problem}", file=sys.stderr)
        return 1
    return 0


def show() -> int:
    """Open JupyterLab on a copy of the notebooks, which a person may change as she likes."""
    shutil.copytree(ROOT / "notebooks", PLAYGROUND, dirs_exist_ok=True)
    port, token = free_port(8888), secrets.token_hex(16)
    address = f"http://localhost:{port}/lab/tree/{NOTEBOOK}?token={token}"
    can_open = _has_browser()
    print(f"JupyterLab {'opens' if can_open else 'is'} at\n\n    {address}\n\nControl-C ends it.")
    command = [
        sys.executable, "-m", "jupyter", "lab", NOTEBOOK,
        f"--ServerApp.port={port}", f"--IdentityProvider.token={token}",
        f"--ServerApp.open_browser={can_open}", f"--ServerApp.root_dir={PLAYGROUND}",
        "--ServerApp.log_level=WARN",
    ]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--ServerApp.allow_root=True")
    try:
        return subprocess.run(command, cwd=PLAYGROUND, check=False).returncode
    except KeyboardInterrupt:
        return 0


def prove(home: Path) -> None:
    """Start a server, run the notebook's cells in a kernel of it, and talk to the agent."""
    began = time.monotonic()
    server = JupyterProcess(home)
    shutil.copytree(ROOT / "notebooks", server.notebooks, dirs_exist_ok=True)
    try:
        server.start()
        say(f"Jupyter Server runs at {server.url}", began)
        kernel = server.kernel(NOTEBOOK)
        for number, code in enumerate(cells(server.notebooks / NOTEBOOK), 1):
            kernel.run(code, limit_s=60)
            say(f"Cell {number} of {NOTEBOOK} ran: {code.strip().splitlines()[0]}", began)
        agent = served(server)
        say(f"An agent is served at {server.ws_url}agents/{agent}/demo", began)
        answer = exchange(server, f"agents/{agent}/demo")
        say(f"Sent over its WebSocket: {GREETING!r}; it answered: {answer!r}", began)
    finally:
        server.stop()
    say("The demo works", began)


def cells(path: Path) -> list[str]:
    """Return the code of a notebook's cells."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    sources = ("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    return [source for source in sources if source.strip()]


def served(server: JupyterProcess) -> str:
    """Return the address of the first class that some kernel serves."""
    hosts = server.request("GET", "api/agents")["hosts"]
    agents = [agent["agent"] for host in hosts for agent in host["agents"]]
    if not agents:
        raise server.problem(f"{NOTEBOOK} ran, but the server knows of no agent: {hosts}")
    return agents[0]


def exchange(server: JupyterProcess, path: str) -> str:
    """Send a greeting and return the first answer that is the agent's own message."""
    try:
        with closing(server.connect(path)) as socket:
            socket.send(GREETING)
            while _is_protocol(text := socket.recv()):
                pass
            return str(text)
    except (websocket.WebSocketException, OSError) as error:
        raise server.problem(f"No answer came from {path}: {error}") from error


def _is_protocol(text: str | bytes) -> bool:
    """Whether this is a frame of the wire, such as the identity, and not a message."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and str(value.get("type", "")).startswith("cf_agent")


def say(sentence: str, began: float) -> None:
    """Print what happened, and when."""
    print(f"{time.monotonic() - began:5.1f} s  {sentence}", flush=True)


def _has_browser() -> bool:
    """Whether a browser can show something: on Linux that takes a display, too."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
