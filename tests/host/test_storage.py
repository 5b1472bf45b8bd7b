from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_agents.errors import StateError
from jupyter_agents.host import storage as storage_module
from jupyter_agents.host.storage import (
    Commits,
    MemoryStorage,
    SqliteStorage,
    StoredInstance,
    default_path,
    open_storage,
)

NOTHING = StoredInstance()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "agents" / "agents.sqlite3"


@pytest.fixture
def sqlite(path):
    with closing(SqliteStorage(path, busy_s=0, retry_s=0)) as storage:
        yield storage


@pytest.fixture(params=["memory", "sqlite"])
def storage(request, sqlite):
    return MemoryStorage() if request.param == "memory" else sqlite


def rows(path):
    """What a foreign reader finds in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT agent, name, state FROM instances").fetchall()


def refuse_name(path, name):
    """Have the file refuse one instance's row, as a disk would that fails in the middle."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            f"CREATE TRIGGER refuse BEFORE INSERT ON instances WHEN NEW.name = '{name}' "
            "BEGIN SELECT RAISE(ABORT, 'the disk says no'); END"
        )


def allow_all_names(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER refuse")


# ── Both storages ────────────────────────────────────────────────────────────────────────


def test_nothing_is_kept_at_first(storage):
    """An instance that never saved anything has no row (T056)."""
    assert storage.load("room", "a") == NOTHING
    assert storage.names("room") == []


def test_save_is_seen_at_once(storage):
    """`load` gives what was saved last, before and after the commit."""
    storage.save("room", "a", state_json=b'{"n":1}', version=3)
    assert storage.load("room", "a") == (b'{"n":1}', 3, None)
    storage.commit()
    assert storage.load("room", "a") == (b'{"n":1}', 3, None)


@pytest.mark.parametrize("falsy", [b"null", b"0", b"false", b'""', b"[]", b"{}"])
def test_falsy_states_are_states(storage, falsy):
    """null, 0, false and "" come back as exactly that (T055)."""
    storage.save("room", "a", state_json=falsy, version=1)
    storage.commit()
    assert storage.load("room", "a").state_json == falsy
    assert storage.names("room") == ["a"]


def test_state_and_private_state_are_independent(storage):
    """Saving one leaves the other as it is."""
    storage.save_private("room", "a", private_json=b'"key"')
    storage.commit()
    storage.save("room", "a", state_json=b"1", version=1)
    storage.commit()
    storage.save("room", "a", state_json=b"2", version=2)
    assert storage.load("room", "a") == (b"2", 2, b'"key"')
    storage.save_private("room", "a", private_json=b'"other"')
    storage.commit()
    assert storage.load("room", "a") == (b"2", 2, b'"other"')


def test_dropping_the_state_keeps_what_is_private(storage):
    """`save` with None drops the state alone, and the row when that was all (T058)."""
    storage.save("room", "a", state_json=b"1", version=1)
    storage.save_private("room", "a", private_json=b"2")
    storage.commit()
    storage.save("room", "a", state_json=None, version=0)
    storage.commit()
    assert storage.load("room", "a") == (None, 0, b"2")
    storage.save_private("room", "a", private_json=None)
    storage.commit()
    assert storage.names("room") == []


def test_clear_drops_everything(storage):
    """A cleared instance is as if it had never been (T019)."""
    storage.save("room", "a", state_json=b"1", version=1)
    storage.save_private("room", "a", private_json=b"2")
    storage.commit()
    storage.clear("room", "a")
    assert storage.load("room", "a") == NOTHING
    assert storage.names("room") == []
    storage.commit()
    assert storage.load("room", "a") == NOTHING
    assert storage.names("room") == []


def test_clearing_what_is_not_there_is_fine(storage):
    """Clearing leaves no row behind."""
    storage.clear("room", "never")
    storage.commit()
    assert storage.names("room") == []


def test_names_are_by_agent_and_in_order(storage):
    """Committed and uncommitted instances of the asked agent only, sorted."""
    for name in ("c", "a"):
        storage.save("room", name, state_json=b"1", version=1)
    storage.save("other", "x", state_json=b"1", version=1)
    storage.commit()
    storage.save("room", "b", state_json=b"1", version=1)
    storage.clear("room", "c")
    assert storage.names("room") == ["a", "b"]


@pytest.mark.parametrize("name", ["a/b", "100%", "_", "'; DROP TABLE instances; --", "ä\0b", "🦀"])
def test_any_name_is_its_own_instance(storage, name):
    """Slashes, SQL and its wildcards, NUL and emoji are parts of a name (T155)."""
    storage.save("room", name, state_json=b"1", version=1)
    storage.commit()
    assert storage.load("room", name).state_json == b"1"
    assert storage.names("room") == [name]
    assert storage.load("room", "a") == NOTHING


def test_memory_survives_close():
    """Closing a memory storage forgets nothing: the class may be served again."""
    storage = MemoryStorage()
    storage.save("room", "a", state_json=b"1", version=1)
    storage.commit()
    storage.close()
    assert storage.load("room", "a").state_json == b"1"


# ── The file ─────────────────────────────────────────────────────────────────────────────


def test_no_file_before_the_first_save(sqlite, path):
    """Making, committing and closing an unused storage touches no disk."""
    sqlite.commit()
    sqlite.close()
    assert not path.parent.exists()


def test_files_are_for_their_owner(sqlite, path):
    """The file and SQLite's helpers beside it have mode 0600, the folder 0700."""
    sqlite.save("room", "a", state_json=b"1", version=1)
    sqlite.commit()
    modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in path.parent.iterdir()}
    assert modes == dict.fromkeys(
        ("agents.sqlite3", "agents.sqlite3-wal", "agents.sqlite3-shm"), 0o600
    )
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_existing_file_keeps_its_mode(tmp_path):
    """Who gave a file to a group keeps it so."""
    path = tmp_path / "shared.sqlite3"
    path.touch()
    path.chmod(0o660)
    with closing(SqliteStorage(path)) as storage:
        storage.save("room", "a", state_json=b"1", version=1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_home_is_expanded(tmp_path, monkeypatch):
    """A path may begin with ~."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with closing(SqliteStorage("~/mine.sqlite3")) as storage:
        storage.save("room", "a", state_json=b"1", version=1)
    assert (tmp_path / "mine.sqlite3").is_file()


def test_state_survives_the_process(sqlite, path):
    """What was committed is there for the next kernel (T054)."""
    sqlite.save("room", "a", state_json=b'{"n":1}', version=7)
    sqlite.save_private("room", "a", private_json=b"[2]")
    sqlite.close()
    with closing(SqliteStorage(path)) as again:
        assert again.load("room", "a") == (b'{"n":1}', 7, b"[2]")


def test_nothing_is_in_the_file_before_the_commit(sqlite, path):
    """All changes of one loop turn are one transaction (DESIGN law 8)."""
    sqlite.save("room", "a", state_json=b"1", version=1)
    sqlite.commit()
    sqlite.save("room", "a", state_json=b"2", version=2)
    sqlite.save("room", "b", state_json=b"3", version=1)
    assert rows(path) == [("room", "a", "1")]
    sqlite.commit()
    assert rows(path) == [("room", "a", "2"), ("room", "b", "3")]


def test_many_sets_are_one_row(sqlite, path):
    """However often a state changed, its row is one, with the last value (T059)."""
    for n in range(100):
        sqlite.save("room", "a", state_json=b"%d" % n, version=n)
        if n % 10 == 0:
            sqlite.commit()
    sqlite.commit()
    assert rows(path) == [("room", "a", "99")]


def test_state_is_readable_with_sqlite_alone(sqlite, path):
    """States are text to SQLite, so its JSON functions work on them."""
    sqlite.save("room", "a", state_json='{"who":"Zoë"}'.encode(), version=1)
    sqlite.commit()
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT json_extract(state, '$.who') FROM instances")
        assert found.fetchall() == [("Zoë",)]


@pytest.mark.parametrize("damage", [b"{", b"\xff\xfe", b""])
def test_damaged_json_is_handed_out_as_it_is(sqlite, path, damage):
    """Bytes that are no JSON, or no text, are for `load_state` to judge (T057)."""
    sqlite.save("room", "a", state_json=b"1", version=1)
    sqlite.commit()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE instances SET state = CAST(? AS TEXT)", (damage,))
        connection.commit()
    assert sqlite.load("room", "a").state_json == damage


def test_journal_is_wal_with_normal_sync(sqlite, path):
    """The file stays in WAL mode, so that a reader never blocks the agents' thread."""
    sqlite.save("room", "a", state_json=b"1", version=1)
    sqlite.commit()
    assert sqlite._connect().execute("PRAGMA synchronous").fetchone() == (1,)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_connection_is_made_on_the_thread_that_uses_it(path):
    """A storage made in a cell is used on the agents' thread."""
    storage = SqliteStorage(path)
    found = []

    def agents_thread():
        storage.save("room", "a", state_json=b"1", version=1)
        storage.commit()
        found.append(storage.load("room", "a").state_json)
        storage.close()

    thread = threading.Thread(target=agents_thread)
    thread.start()
    thread.join()
    assert found == [b"1"]


def test_close_commits_and_the_next_use_opens_again(sqlite, path):
    """`close` loses nothing, and is not the end."""
    sqlite.save("room", "a", state_json=b"1", version=1)
    sqlite.close()
    assert rows(path) == [("room", "a", "1")]
    assert sqlite.load("room", "a").state_json == b"1"


def test_close_is_idempotent(sqlite):
    """Closing twice is harmless."""
    sqlite.close()
    sqlite.close()


def test_two_processes_write_one_file(path):
    """Kernels share the file: every row of both is there afterwards."""
    program = (
        "import sys\n"
        "from jupyter_agents.host.storage import SqliteStorage\n"
        "storage = SqliteStorage(sys.argv[1], busy_s=30)\n"
        "for n in range(50):\n"
        "    storage.save(sys.argv[2], str(n), state_json=b'%d' % n, version=1)\n"
        "    storage.commit()\n"
        "storage.close()\n"
    )
    root = Path(__file__).parents[2]
    kernels = [
        subprocess.Popen(
            [sys.executable, "-c", program, path, agent], cwd=root, stderr=subprocess.PIPE
        )
        for agent in ("one", "two")
    ]
    assert [kernel.communicate()[1] for kernel in kernels] == [b"", b""]
    with closing(SqliteStorage(path)) as storage:
        assert len(storage.names("one")) == len(storage.names("two")) == 50


# ── Disks that fail ──────────────────────────────────────────────────────────────────────


def test_failed_commit_writes_nothing_and_loses_nothing(sqlite, path):
    """A commit is all or nothing, and what it could not write goes with a later one."""
    sqlite.save("room", "a", state_json=b"1", version=1)
    sqlite.commit()
    refuse_name(path, "bad")
    sqlite.save("room", "a", state_json=b"2", version=2)
    sqlite.save("room", "bad", state_json=b"3", version=1)
    sqlite.save_private("room", "c", private_json=b"4")
    with pytest.raises(StateError, match=r"cannot be written: the disk says no"):
        sqlite.commit()
    assert rows(path) == [("room", "a", "1")]
    assert sqlite.load("room", "a") == (b"2", 2, None)
    allow_all_names(path)
    sqlite.commit()
    assert rows(path) == [("room", "a", "2"), ("room", "bad", "3"), ("room", "c", None)]


def test_failed_commit_names_file_and_way_out(sqlite, path):
    """The sentence says which file, what is wrong and what to do."""
    sqlite.save("room", "a", state_json=b"1", version=1)
    sqlite.commit()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        sqlite.save("room", "a", state_json=b"2", version=2)
        with pytest.raises(StateError) as caught:
            sqlite.commit()
    assert str(path) in str(caught.value)
    assert "locked" in str(caught.value)
    assert 'serve(..., storage=path or "memory")' in str(caught.value)
    sqlite.commit()
    assert rows(path) == [("room", "a", "2")]


def test_locked_file_does_not_stop_every_turn(path):
    """After a commit waited in vain, the next ones fail at once for a while."""
    storage = SqliteStorage(path, busy_s=0.05, retry_s=3600)
    storage.save("room", "a", state_json=b"1", version=1)
    storage.commit()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        storage.save("room", "a", state_json=b"2", version=2)
        with pytest.raises(StateError):
            storage.commit()
    # The lock is gone, but the pause is not over.
    with pytest.raises(StateError, match="locked"):
        storage.commit()
    storage.close()
    assert rows(path) == [("room", "a", "2")]


def test_pause_after_a_failure_ends(sqlite, path, monkeypatch):
    """Once `retry_s` has passed, a commit tries again and forgets the failure."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    storage = SqliteStorage(path, busy_s=0, retry_s=10)
    storage.save("room", "bad", state_json=b"1", version=1)
    sqlite.names("room")  # makes the table
    refuse_name(path, "bad")
    with pytest.raises(StateError):
        storage.commit()
    allow_all_names(path)
    now = 109.0
    with pytest.raises(StateError):
        storage.commit()
    now = 111.0
    storage.commit()
    storage.close()
    assert rows(path) == [("room", "bad", "1")]


def test_errors_do_not_pile_up_tracebacks(path, sqlite):
    """Each failing commit raises an error of its own: a broken disk does not eat memory."""
    sqlite.names("room")
    refuse_name(path, "bad")
    storage = SqliteStorage(path, busy_s=0, retry_s=3600)
    storage.save("room", "bad", state_json=b"1", version=1)
    errors = []
    for _ in range(3):
        with pytest.raises(StateError) as caught:
            storage.commit()
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 3
    with pytest.raises(StateError):
        storage.close()


def test_not_a_database_is_said_and_can_be_repaired(sqlite, path):
    """A damaged file raises at every use, and works again once it was moved away."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is no database at all, whatever its name says" * 100)
    with pytest.raises(StateError, match="cannot be read: file is not a database"):
        sqlite.load("room", "a")
    sqlite.save("room", "a", state_json=b"1", version=1)
    with pytest.raises(StateError, match="cannot be written: file is not a database"):
        sqlite.commit()
    path.unlink()
    sqlite.commit()
    assert rows(path) == [("room", "a", "1")]


@pytest.mark.parametrize("where", ["file/agents.sqlite3", "folder"])
def test_impossible_path_is_said(tmp_path, where):
    """A folder that cannot be made, or a folder where the file should be, is a StateError."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    storage = SqliteStorage(tmp_path / where)
    with pytest.raises(StateError, match="cannot be read"):
        storage.load("room", "a")
    with pytest.raises(StateError, match="cannot be read"):
        storage.names("room")


def test_unstorable_name_is_said(sqlite):
    """A name that is no Unicode text cannot be kept, and that does not pass silently."""
    sqlite.save("room", "\ud800", state_json=b"1", version=1)
    with pytest.raises(StateError, match="cannot be written"):
        sqlite.commit()
    sqlite._states.clear()


def test_close_lets_go_even_when_the_commit_fails(sqlite, path):
    """`close` raises what the commit raises, and the file is closed all the same."""
    sqlite.names("room")
    refuse_name(path, "bad")
    sqlite.save("room", "bad", state_json=b"1", version=1)
    with pytest.raises(StateError):
        sqlite.close()
    assert sqlite._connection is None
    sqlite._states.clear()


# ── Schema ───────────────────────────────────────────────────────────────────────────────


def schema_facts(path):
    """SQLite's own count of schema changes, and our version row."""
    with closing(sqlite3.connect(path)) as connection:
        changes = connection.execute("PRAGMA schema_version").fetchone()
        return changes, connection.execute("SELECT version FROM schema").fetchall()


def test_schema_is_made_once(sqlite, path):
    """The second opening finds the version row and changes nothing (T061)."""
    sqlite.save("room", "a", state_json=b"1", version=1)
    sqlite.close()
    first = schema_facts(path)
    assert first[1] == [(len(storage_module._MIGRATIONS),)]
    sqlite.load("room", "a")
    sqlite.close()
    assert schema_facts(path) == first


def test_old_schema_is_migrated_with_its_rows(sqlite, path, monkeypatch):
    """A file of an older version gets the missing migrations, once, and keeps its rows (T061)."""
    sqlite.save("room", "a", state_json=b"1", version=1)
    sqlite.close()
    newer = (
        *storage_module._MIGRATIONS,
        "ALTER TABLE instances ADD COLUMN extra TEXT DEFAULT 'x'",
    )
    monkeypatch.setattr(storage_module, "_MIGRATIONS", newer)
    for _ in range(2):
        with closing(SqliteStorage(path)) as storage:
            assert storage.load("room", "a").state_json == b"1"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT extra FROM instances").fetchall() == [("x",)]
    assert schema_facts(path)[1] == [(2,)]


def test_failed_migration_leaves_the_old_schema(sqlite, path, monkeypatch):
    """A migration is a transaction: half of one is never seen."""
    sqlite.save("room", "a", state_json=b"1", version=1)
    sqlite.close()
    before = schema_facts(path)
    broken = (*storage_module._MIGRATIONS, "CREATE TABLE later (x)", "ALTER TABLE nowhere ADD y")
    monkeypatch.setattr(storage_module, "_MIGRATIONS", broken)
    with pytest.raises(StateError, match="nowhere"):
        SqliteStorage(path).load("room", "a")
    assert schema_facts(path)[1] == before[1]
    monkeypatch.undo()
    assert sqlite.load("room", "a").state_json == b"1"


def test_newer_schema_is_refused(sqlite, path):
    """A file of a newer jupyter_agents is left alone, with a sentence that says so."""
    sqlite.save("room", "a", state_json=b"1", version=1)
    sqlite.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE schema SET version = 99")
        connection.commit()
    with pytest.raises(StateError, match="a newer jupyter_agents wrote it"):
        sqlite.load("room", "a")
    assert schema_facts(path)[1] == [(99,)]


def test_foreign_database_is_not_harmed(tmp_path):
    """Pointing at another program's file adds our tables and keeps its own."""
    path = tmp_path / "history.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE history (line TEXT)")
    with closing(SqliteStorage(path)) as storage:
        storage.save("room", "a", state_json=b"1", version=1)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM history").fetchone() == (0,)


# ── Which storage ────────────────────────────────────────────────────────────────────────


def test_default_path_is_in_jupyters_data_directory(tmp_path, monkeypatch):
    """One findable file for all agents of a user."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    assert default_path() == tmp_path / "jupyter_agents" / "agents.sqlite3"
    assert open_storage().path == default_path()


def test_open_storage_by_word_path_or_object(tmp_path):
    """It takes "memory", a path as text or Path, or any storage object."""
    assert isinstance(open_storage("memory"), MemoryStorage)
    assert open_storage(str(tmp_path / "a")).path == tmp_path / "a"
    assert open_storage(tmp_path / "a").path == tmp_path / "a"
    own = MemoryStorage()
    assert open_storage(own) is own


# ── Against a model ──────────────────────────────────────────────────────────────────────

KEYS = st.sampled_from([("r", "a"), ("r", "b"), ("q", "a")])
TEXTS = st.none() | st.sampled_from([b"null", b"1", b'{"a":[]}'])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("save"), KEYS, TEXTS, st.integers(0, 9)),
        st.tuples(st.just("save_private"), KEYS, TEXTS),
        st.tuples(st.just("clear"), KEYS),
        st.tuples(st.just("commit")),
        st.tuples(st.just("close")),
    ),
    max_size=25,
)


def apply(storage, operation):
    kind, *rest = operation
    if kind == "save":
        key, text, version = rest
        # Without a state there is no version either, unless something private keeps the row.
        storage.save(*key, state_json=text, version=version if text else 0)
    elif kind == "save_private":
        key, text = rest
        storage.save_private(*key, private_json=text)
    elif kind == "clear":
        storage.clear(*rest[0])
    else:
        getattr(storage, kind)()


@given(OPERATIONS)
@settings(max_examples=60, deadline=None)
def test_file_and_memory_agree(tmp_path_factory, operations):
    """Whatever is done in whatever order, the file keeps what the dictionary keeps."""
    model = MemoryStorage()
    path = tmp_path_factory.mktemp("model") / "agents.sqlite3"
    with closing(SqliteStorage(path)) as storage:
        for operation in operations:
            apply(model, operation)
            apply(storage, operation)
            check_equal(model, storage)
    with closing(SqliteStorage(path)) as again:
        check_equal(model, again)


def check_equal(model, storage):
    for agent in ("r", "q"):
        assert storage.names(agent) == model.names(agent)
        for name in ("a", "b"):
            assert storage.load(agent, name) == model.load(agent, name)


def test_stored_instances_are_json_text(sqlite):
    """A deep state comes back byte for byte (T060)."""
    deep = json.dumps([[[[{"a": {"b": [1, {"c": None}]}}]]]]).encode()
    sqlite.save("room", "a", state_json=deep, version=1)
    sqlite.close()
    assert sqlite.load("room", "a").state_json == deep


async def test_commit_that_fails_is_tried_again_until_it_does_not(caplog, monkeypatch):
    """A full disk is logged once, and what waits is saved when there is room, without a change."""
    monkeypatch.setattr(storage_module, "SAVE_AGAIN_S", 0.005)
    loop, saved, is_full = asyncio.get_running_loop(), asyncio.Event(), True

    class Full(MemoryStorage):
        def commit(self):
            if is_full:
                raise OSError
            saved.set()

    commits = Commits(loop, lambda: loop.call_soon(commits.commit))
    commits.touched.add(storage := Full())
    commits.commit()
    commits.touched.add(storage)
    commits.commit()
    is_full = False
    await asyncio.wait_for(saved.wait(), 5)
    assert caplog.text.count("could not be saved") == 1
    saved.clear()
    await asyncio.sleep(0.02)
    assert not saved.is_set()
    commits.end()
