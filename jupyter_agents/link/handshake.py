"""How the two ends of the link prove themselves.

By the kernel's connection-file key, without sending it.

Four ``HELLO`` frames::

    kernel → {"version", "package", "fingerprint", "nonce"}
    server → {"version", "package", "nonce", "proof", "kernel_id"}   or {"error", "version"}
    kernel → {"proof"}
    server → {"welcome": {…limits}}                                   or {"error"}

A proof is an HMAC over both nonces and the prover's role, so a recorded conversation is worth
nothing, and neither side can be used to answer for the other. Nonces come in as arguments: this
room has no dice.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import LinkError, LinkRefused, LinkVersionMismatch
from jupyter_agents.link.frames import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KernelHandshake", "ServerHandshake", "fingerprint"]

NONCE_CHARS = 32
"""Shortest nonce that is accepted, in characters."""


def fingerprint(key: bytes) -> str:
    """A name for the key that does not give it away: 32 hexadecimal digits."""
    return _mac(key, "jupyter-agents-id")[:32]


def _mac(key: bytes, *words: str) -> str:
    text = "\n".join(words).encode("utf-8", "replace")
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def _is_same(expected: str, given: str) -> bool:
    # compare_digest takes no text beyond ASCII, and the other side may send any
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))


def _word(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        raise LinkRefused(f"The other side's hello lacks {name!r}")
    return value


def _nonce(message: dict[str, Any]) -> str:
    nonce = _word(message, "nonce")
    if len(nonce) < NONCE_CHARS:
        raise LinkRefused("The other side's nonce is too short")
    return nonce


class KernelHandshake:
    """The kernel's part.

    Parameters
    ----------
    key : bytes
        The key of the kernel's connection file.
    nonce : str
        Fresh random text, at least 32 characters.
    package : str
        The version of jupyter_agents on this side, for the message when versions differ.
    """

    def __init__(self, key: bytes, nonce: str, package: str) -> None:
        self._key = key
        self._nonce = nonce
        self._package = package
        self._proved = False
        self.welcome: dict[str, Any] | None = None
        self.kernel_id = ""

    def hello(self) -> dict[str, Any]:
        """The first word."""
        return {
            "version": VERSION,
            "package": self._package,
            "fingerprint": fingerprint(self._key),
            "nonce": self._nonce,
        }

    def receive(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Take the server's word.

        Returns the answer, or None when `welcome` is set and all is done.

        Raises
        ------
        LinkVersionMismatch
            When the server speaks another version of the link.
        LinkRefused
            When the server does not know this kernel, or did not prove that it does.
        """
        theirs = message.get("version", VERSION)
        if theirs != VERSION:
            raise LinkVersionMismatch(VERSION, str(theirs))
        if "error" in message:
            raise LinkRefused(str(message["error"]))
        if self._proved:
            self.welcome = message.get("welcome") or {}
            return None
        nonce = _nonce(message)
        expected = _mac(self._key, "server", self._nonce, nonce)
        if not _is_same(expected, _word(message, "proof")):
            raise LinkRefused("The server did not prove that it knows this kernel's key")
        self.kernel_id = str(message.get("kernel_id", ""))
        self._proved = True
        return {"proof": _mac(self._key, "kernel", self._nonce, nonce)}


class ServerHandshake:
    """The server's part.

    Parameters
    ----------
    find_key : callable
        Fingerprint → ``(key, kernel_id)`` of a kernel that this server manages, or None.
    nonce, package : str
        As in KernelHandshake.
    """

    def __init__(
        self, find_key: Callable[[str], tuple[bytes, str] | None], nonce: str, package: str
    ) -> None:
        self._find_key = find_key
        self._nonce = nonce
        self._package = package
        self._expected: str | None = None
        self.kernel_id = ""
        self.done = False

    def receive(self, message: dict[str, Any], welcome: dict[str, Any]) -> dict[str, Any]:
        """Take the kernel's word; returns the answer.

        When `done` is true afterwards, the kernel is known.

        Raises
        ------
        LinkError
            LinkVersionMismatch or LinkRefused; `refusal` makes the answer to send before hanging
            up.
        """
        if self.done:
            raise LinkRefused("A second hello came over a link that is open already")
        if self._expected is None:
            return self._challenge(message)
        if not _is_same(self._expected, _word(message, "proof")):
            raise LinkRefused("The kernel did not prove that it knows its key")
        self.done = True
        return {"welcome": welcome}

    def _challenge(self, message: dict[str, Any]) -> dict[str, Any]:
        theirs = _word(message, "version")
        if theirs != VERSION:
            raise LinkVersionMismatch(VERSION, theirs)
        known = self._find_key(_word(message, "fingerprint"))
        if known is None:
            raise LinkRefused("This Jupyter Server does not manage that kernel")
        key, self.kernel_id = known
        their_nonce = _nonce(message)
        self._expected = _mac(key, "kernel", their_nonce, self._nonce)
        return {
            "version": VERSION,
            "package": self._package,
            "nonce": self._nonce,
            "kernel_id": self.kernel_id,
            "proof": _mac(key, "server", their_nonce, self._nonce),
        }

    @staticmethod
    def refusal(error: LinkError) -> dict[str, Any]:
        """The last word before hanging up."""
        return {"error": str(error), "version": VERSION}
