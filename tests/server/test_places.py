"""Where a server and its kernels meet: only this user gets there, and leftovers are swept."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jupyter_agents.access.keys import KeyRing
from jupyter_agents.host.uplink import _shared_marks
from jupyter_agents.link.marks import SLOTS
from jupyter_agents.server import places
from jupyter_agents.server.places import SharedMarks, bind_unix, remove, socket_path, sweep


@pytest.fixture
def memory_dir(tmp_path, monkeypatch):
    """A place for files in memory of the test's own."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(places, "_SHARED_MEMORY", folder)
    return folder


@pytest.fixture
def short_path():
    """A folder in which a socket's path is not too long, whatever pytest's own is called."""
    with tempfile.TemporaryDirectory(prefix="ja-") as folder:
        yield Path(folder)


def test_socket_is_this_users_alone(tmp_path):
    """0600, listening, and gone after `remove`."""
    path = socket_path(tmp_path / "run")
    bound = bind_unix(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    bound.close()
    remove(path)
    assert not path.exists()


def test_long_runtime_directory_falls_back_to_a_short_path(tmp_path):
    """The system's limit on a socket's path is never hit."""
    path = socket_path(tmp_path / ("x" * 120))
    assert len(os.fsencode(path)) <= 100
    bind_unix(path).close()
    remove(path)
    assert not path.parent.exists()


@pytest.mark.parametrize("below", ["run", "x" * 120])
def test_sweep_removes_what_nobody_listens_at(short_path, memory_dir, monkeypatch, below):
    """A dead server's socket and old marks go, a living server's stay; in short folders, too."""
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    runtime = short_path / below
    alive, dead = socket_path(runtime), socket_path(runtime)
    bound = bind_unix(alive)
    bind_unix(dead).close()
    old, fresh = memory_dir / "jpagents-1-a.marks", memory_dir / "jpagents-1-b.marks"
    old.touch()
    fresh.touch()
    os.utime(old, (0, 0))
    sweep(runtime)
    assert alive.exists()
    assert not dead.exists()
    assert not old.exists()
    assert fresh.exists()
    bound.close()


def test_marks_are_shared_by_whoever_maps_the_file(tmp_path, memory_dir):
    """What one side writes the other reads; the file is 0600, and may be hidden after."""
    shared = SharedMarks(tmp_path)
    assert shared.path.parent == memory_dir
    assert stat.S_IMODE(shared.path.stat().st_mode) == 0o600
    slot = shared.marks.give()
    shared.marks.numbers[slot] = 7
    written = shared.path.read_bytes()
    assert int.from_bytes(written[8 * slot : 8 * slot + 8], "little") == 7
    shared.hide()
    assert not shared.path.exists()
    shared.hide()


def test_marks_live_in_the_runtime_directory_where_there_is_no_memory(tmp_path, monkeypatch):
    """Without a place for files in memory, the runtime directory serves."""
    monkeypatch.setattr(places, "_SHARED_MEMORY", tmp_path / "missing")
    shared = SharedMarks(tmp_path)
    assert shared.path.parent == tmp_path
    shared.hide()


def test_kernel_writes_where_the_server_reads(tmp_path, memory_dir):
    """Both ends map the same numbers, also once the file is hidden."""
    shared = SharedMarks(tmp_path)
    kernels = _shared_marks(str(shared.path))
    assert kernels is not None
    shared.hide()
    assert len(kernels) == len(shared.marks.numbers) == SLOTS
    kernels[SLOTS - 1] = 2**40
    assert shared.marks.numbers[SLOTS - 1] == 2**40


@pytest.mark.parametrize("path", [None, "", "/nowhere/x.marks", "empty"])
def test_kernel_without_the_memory_does_without(path, tmp_path):
    """A file that is not there, or is empty, is no error: nothing is shared then."""
    (tmp_path / "empty").touch()
    assert _shared_marks(str(tmp_path / "empty") if path == "empty" else path) is None


def test_marks_that_cannot_be_had_are_an_os_error(tmp_path, monkeypatch):
    """The link then goes without them."""
    monkeypatch.setattr(places, "_SHARED_MEMORY", tmp_path / "missing")
    with pytest.raises(OSError, match="No such file"):
        SharedMarks(tmp_path / "missing")


AS_NOBODY = """
import os, socket, sys
os.setgid(65534), os.setuid(65534)
outcome = []
for path in sys.argv[1:]:
    try:
        if path.endswith(".sock"):
            socket.socket(socket.AF_UNIX).connect(path)
        else:
            open(path, "rb").close()
        outcome.append("in")
    except PermissionError:
        outcome.append("out")
print(*outcome)
"""


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root is anybody")
def test_another_user_stays_outside(monkeypatch):
    """Another user of the machine opens neither socket nor shared memory nor the links' keys."""
    with tempfile.TemporaryDirectory(prefix="door-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # what keeps others out is the files' own mode
        path = folder / "jpagents-1-a.sock"
        bound = bind_unix(path)
        monkeypatch.setattr(places, "_SHARED_MEMORY", folder)
        marks = SharedMarks(folder)
        KeyRing(folder / "share-keys.json").signing(0.0)
        open_to_all = folder / "open"
        open_to_all.write_text("")
        open_to_all.chmod(0o644)
        tried = [path, marks.path, folder / "share-keys.json", open_to_all]
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, *map(str, tried)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["out", "out", "out", "in"]
        marks.hide()
        bound.close()
