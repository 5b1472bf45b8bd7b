"""The keys that sign links: for their owner only, kept over restarts, replaced by hand."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading

import pytest

from jupyter_agents.access.keys import KeyRing

NOW = 1_000_000.0
posix = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")


@pytest.fixture
def path(tmp_path):
    """A file in a folder that is not there yet."""
    return tmp_path / "jupyter_agents" / "share-keys.json"


@posix
def test_file_is_its_owners_only(path):
    """Key file and folder are made for their owner alone, and no draft stays behind."""
    KeyRing(path).signing(NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_restart_keeps_the_key(path):
    """The next server signs with the same key."""
    key = KeyRing(path).signing(NOW)
    again = KeyRing(path)
    assert again.signing(NOW + 1) == key
    assert again.find(key.id, NOW) == key.secret
    assert len(key.secret) == 32


def test_keys_differ():
    """Every ring of its own has a key of its own."""
    assert KeyRing(None).signing(NOW).secret != KeyRing(None).signing(NOW).secret


def test_two_servers_that_start_at_once_agree(path):
    """Whoever makes the file first wins; nobody signs with a key that the others do not know."""
    gate, keys = threading.Barrier(8), []

    def start():
        ring = KeyRing(path)
        gate.wait()
        keys.append(ring.signing(NOW))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_rotation_keeps_old_links_until_they_expire(path):
    """A new key signs; the old one verifies until its last link has expired, and not longer."""
    ring = KeyRing(path)
    old = ring.signing(NOW)
    ring.rotate(NOW, NOW + 100)
    new = ring.signing(NOW)
    assert new.secret != old.secret
    assert ring.find(old.id, NOW + 99) == old.secret
    assert ring.find(old.id, NOW + 100) is None
    assert KeyRing(path).find(old.id, NOW + 99) == old.secret
    ring.rotate(NOW + 200, NOW + 300)
    assert len(json.loads(path.read_bytes())["keys"]) == 2  # the oldest is gone


def test_rotation_can_end_every_link(path):
    """With a time that is past, no older key verifies anything."""
    ring = KeyRing(path)
    old = ring.signing(NOW)
    ring.rotate(NOW, NOW - 1)
    assert ring.find(old.id, NOW) is None


def test_rotation_elsewhere_holds_here(path):
    """A running server sees that another one, or its owner, has changed the file."""
    ring, other = KeyRing(path), KeyRing(path)
    old = ring.signing(NOW)
    other.rotate(NOW, NOW - 1)
    assert ring.find(old.id, NOW) is None
    assert ring.signing(NOW) == other.signing(NOW)
    kept = other.signing(NOW)
    path.unlink()
    assert ring.find(kept.id, NOW) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"keys": [{"id": "a", "key": "00", "created": 1}]}', b"\xff"]
)
def test_a_broken_file_opens_nothing(path, content, caplog):
    """A file that cannot be read is said so and replaced: links die, the server lives."""
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o600)
    ring = KeyRing(path)
    assert ring.find("a", NOW) is None
    assert "links are dead" in caplog.text
    key = ring.signing(NOW)
    assert KeyRing(path).signing(NOW) == key


def test_a_file_that_cannot_be_read_for_a_moment_is_kept(path, monkeypatch):
    """Too many open files, say: links open nothing meanwhile, and all of them after."""
    key = KeyRing(path).signing(NOW)
    ring = KeyRing(path)
    with monkeypatch.context() as patch:
        patch.setattr(type(path), "read_bytes", raise_oserror)
        assert ring.find(key.id, NOW) is None
        assert ring.signing(NOW) != key
    assert ring.find(key.id, NOW) == key.secret
    assert KeyRing(path).signing(NOW) == key


def raise_oserror(path):
    """What the system says when it has no file descriptor left."""
    raise OSError(errno.EMFILE, "Too many open files")


@posix
def test_a_file_open_to_others_is_closed(path, caplog):
    """A key file that others could read is made private again, with a warning."""
    KeyRing(path).signing(NOW)
    path.chmod(0o644)
    KeyRing(path).signing(NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "open to others" in caplog.text


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="root may write anywhere")
@posix
def test_where_nothing_can_be_kept_links_live_as_long_as_the_server(tmp_path, caplog):
    """A folder that cannot be written costs the links' life, not the server's."""
    tmp_path.chmod(0o500)
    ring = KeyRing(tmp_path / "sub" / "keys.json")
    key = ring.signing(NOW)
    assert ring.signing(NOW) == key
    assert ring.find(key.id, NOW) == key.secret
    assert "cannot be kept" in caplog.text
    tmp_path.chmod(0o700)


def test_no_folder_no_server_down(tmp_path, caplog):
    """The same where a file stands in the folder's place."""
    (tmp_path / "sub").write_text("")
    ring = KeyRing(tmp_path / "sub" / "keys.json")
    key = ring.signing(NOW)
    assert ring.find(key.id, NOW) == key.secret
    assert "cannot be kept" in caplog.text


def test_a_secret_is_never_logged(path, caplog):
    """What goes wrong with the file is told without what is in it."""
    caplog.set_level("DEBUG")
    secret = KeyRing(path).signing(NOW).secret
    path.write_bytes(path.read_bytes()[:-10])
    KeyRing(path).find("a", NOW)
    assert caplog.text
    assert secret.hex() not in caplog.text
