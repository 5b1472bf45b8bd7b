"""The keys that sign links: in a file for its owner only, newest first.

Links outlive the server that made them, so the keys do, too. The file is looked at again when it
has changed: a rotation by hand, or by another server of this user, holds at once.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Key", "KeyRing"]

KEY_BYTES = 32

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """One key; the first of a ring signs, the others only verify."""

    id: str
    secret: bytes
    created: float
    until: float | None = None
    """When it verifies no more; None for the one that signs."""


class KeyRing:
    """The keys of one user's servers.

    Parameters
    ----------
    path : Path or None
        Their file, 0600; made with its first key. None keeps them in memory: links end with the
        process then.
    dice : callable
        Number of bytes → that many random ones.
    """

    def __init__(
        self, path: Path | None, dice: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._path = path
        self._dice = dice
        self._keys: tuple[Key, ...] = ()
        self._seen: object = None

    def signing(self, now: float) -> Key:
        """Return the key that signs; made when there is none."""
        if not self._current():
            self._begin(now)
        return self._keys[0]

    def find(self, key_id: str, now: float) -> bytes | None:
        """Return the secret of the key of this id; None when it is not ours any more."""
        for key in self._current():
            if key.id == key_id and (key.until is None or now < key.until):
                return key.secret
        return None

    def rotate(self, now: float, until: float) -> None:
        """Have a new key sign from now on; those before it verify until `until`.

        That is the expiry of the last link that they signed. With `until` in the past every link
        is dead at once.
        """
        before = [
            Key(key.id, key.secret, key.created, until if key.until is None else key.until)
            for key in self._current()
        ]
        living = [key for key in before if key.until is not None and key.until > now]
        self._keys = (self._new(now), *living)
        self._write(replace=True)

    # -- the file ------------------------------------------------------------------------------

    def _current(self) -> tuple[Key, ...]:
        """The keys as the file has them now."""
        if self._path is None:
            return self._keys
        seen = _look(self._path)
        if seen != self._seen:
            found = _read(self._path)
            if found is not None:
                self._seen, self._keys = seen, found
        return self._keys

    def _begin(self, now: float) -> None:
        self._keys = (self._new(now),)
        # A file that makes no sense is no use to anybody. One that cannot be read at the moment,
        # or that another server has made meanwhile, is.
        self._write(replace=self._seen is not None)

    def _new(self, now: float) -> Key:
        return Key(self._dice(4).hex(), self._dice(KEY_BYTES), now)

    def _write(self, *, replace: bool) -> None:
        if self._path is None:
            return
        try:
            _put(self._path, _packed(self._keys), replace=replace)
        except OSError as error:
            _log.warning("The keys of shared links cannot be kept, so these end soon: %s", error)
            self._path = None
            return
        found = _read(self._path)
        if found is not None:
            self._seen = _look(self._path)
            self._keys = found or self._keys  # another server may have been first


def _look(path: Path) -> object:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


def _read(path: Path) -> tuple[Key, ...] | None:
    """Return the keys in a file; None when it is there and cannot be read."""
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            _log.warning("%s was open to others; from now on it is yours only", path)
            path.chmod(0o600)
        return tuple(_key(facts) for facts in json.loads(path.read_bytes())["keys"])
    except FileNotFoundError:
        return ()
    except OSError as error:
        _log.warning("The keys in %s cannot be read, so its links open nothing: %r", path, error)
        return None
    except (ValueError, TypeError, KeyError) as error:
        _log.warning("The keys in %s cannot be read, so its links are dead: %r", path, error)
        return ()


def _key(facts: dict[str, Any]) -> Key:
    until = facts.get("until")
    secret = bytes.fromhex(facts["key"])
    if len(secret) < KEY_BYTES:
        raise ValueError("a key is too short")
    return Key(str(facts["id"]), secret, float(facts["created"]), until and float(until))


def _packed(keys: tuple[Key, ...]) -> bytes:
    facts = [
        {"id": key.id, "key": key.secret.hex(), "created": key.created, "until": key.until}
        for key in keys
    ]
    return json.dumps({"keys": facts}, indent=1).encode()


def _put(path: Path, content: bytes, *, replace: bool) -> None:
    """Write all of a file or nothing; without `replace` the first of two writers wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    file = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(file, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        if replace:
            draft.replace(path)
        else:
            _place(draft, path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def _place(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        draft.replace(path)
