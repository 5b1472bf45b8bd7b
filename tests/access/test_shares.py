"""The register of links: kept over restarts, seen by all servers of a user, without a secret."""

from __future__ import annotations

import os
import stat

import pytest

from jupyter_agents.access.capability import Capability
from jupyter_agents.access.shares import Shared, Shares
from jupyter_agents.errors import ShareError

NOW = 1_000_000.0


def shared(share_id="a", agent="chat-room", name="lobby", expires=int(NOW) + 100, created=NOW):
    """A link."""
    return Shared(Capability(share_id, agent, name, expires, True, 5), "Class 3", created)


@pytest.fixture(params=["file", "memory"])
def register(request, tmp_path):
    """A register with room for three, in a file and in memory."""
    path = tmp_path / "sub" / "shares.sqlite3" if request.param == "file" else None
    made = Shares(path, 3)
    yield made
    made.close()


@pytest.fixture
def path(tmp_path):
    """A file in a folder that is not there yet."""
    return tmp_path / "sub" / "shares.sqlite3"


def test_a_link_comes_back_whole(register):
    """Everything that was noted is read again."""
    register.add(shared())
    assert register.get("a") == shared()
    assert register.get("b") is None
    assert register.among(["a", "b"]) == {"a": shared()}


def test_revocation_holds(register):
    """A revoked link stays revoked, from the first time on, and is no good."""
    register.add(shared())
    assert register.revoke("a", NOW + 1)
    assert register.revoke("a", NOW + 2)
    found = register.get("a")
    assert found.revoked == NOW + 1
    assert not found.is_good(NOW + 1)
    assert register.of("chat-room", None, NOW + 1) == []
    assert not register.revoke("nobody", NOW)


def test_expiry(register):
    """A link is good until its time, and not at it."""
    one = shared()
    assert one.is_good(NOW + 99.9)
    assert not one.is_good(NOW + 100)
    register.add(one)
    assert register.last_expiry() == NOW + 100
    assert register.of("chat-room", "lobby", NOW + 100) == []


def test_links_are_listed_by_instance(register):
    """Those of one instance, or of the class, in the order they were made."""
    register.add(shared("b", name="office"))
    register.add(shared("a", created=NOW + 1))
    register.add(shared("c", agent="other"))
    assert [s.capability.id for s in register.of("chat-room", None, NOW)] == ["b", "a"]
    assert [s.capability.id for s in register.of("chat-room", "lobby", NOW)] == ["a"]


def test_links_are_bounded(register):
    """One more than allowed is refused in words; revoked and expired ones make room."""
    for share_id in "abc":
        register.add(shared(share_id))
    with pytest.raises(ShareError, match="limit is 3"):
        register.add(shared("d"))
    register.revoke("a", NOW)
    register.add(shared("d"))
    register.add(shared("e", created=NOW + 100, expires=int(NOW) + 200))
    assert register.get("b") is None  # expired ones are forgotten


def test_revoked_links_are_bounded(register):
    """Who shares and revokes for ever leaves no more behind than may be good at once."""
    for number in range(10):
        register.add(shared(str(number)))
        register.revoke(str(number), NOW + number)
    kept = [number for number in range(10) if register.get(str(number)) is not None]
    assert kept == [6, 7, 8, 9]  # three, and the one since the last was added


def test_a_restart_and_another_server_see_the_same(path):
    """What one server notes, another of the same user knows at once, and so does the next."""
    first, second = Shares(path, 9), Shares(path, 9)
    first.add(shared())
    assert second.get("a") == shared()
    second.revoke("a", NOW)
    assert first.get("a").revoked == NOW
    first.close()
    second.close()
    third = Shares(path, 9)
    assert third.get("a").revoked == NOW
    third.close()


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_file_is_its_owners_only(path):
    """The register is nobody else's, though it holds no secret."""
    register = Shares(path, 9)
    register.add(shared())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    register.close()


def test_a_broken_register_closes_every_door(path, caplog):
    """A file that is no register is not used: what it knew opens nothing, and it is said."""
    path.parent.mkdir()
    path.write_bytes(b"not a database, not at all" * 100)
    register = Shares(path, 9)
    assert register.get("a") is None
    assert "none can be kept" in caplog.text
    register.add(shared())
    assert register.get("a") == shared()
    register.close()


def test_a_register_that_fails_later_raises_ours(register):
    """What SQLite says becomes a ShareError, so that the kernel hears a sentence."""
    register.add(shared())
    with pytest.raises(ShareError, match="cannot be used"):
        register.add(shared())  # the same id again
