"""What a shared link carries: a signed word on one instance, who may do what with it, until when.

Pure: the key and the time come in as arguments. Who holds such a text may enter that one instance
and nothing else; that it was not revoked meanwhile, `shares.py` knows.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Capability", "read", "sign"]

MAX_CHARS = 8192
"""A name has up to 1024 bytes; a longer text is none of ours."""

_FORM = re.compile(r"jas\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Capability:
    """What one link opens.

    Parameters
    ----------
    id : str
        Random; says nothing, opens nothing.
    agent, name : str
        The one instance, as the server spells it.
    expires : int
        Seconds since the epoch.
    readonly : bool
        Whether the state may only be looked at.
    max_connections : int or None
        WebSockets at once over this link; None for as many as the server bears.
    """

    id: str
    agent: str
    name: str
    expires: int
    readonly: bool = False
    max_connections: int | None = None


def sign(capability: Capability, key_id: str, key: bytes) -> str:
    """Return the text of a link: letters, digits, ``-``, ``_`` and ``.``, so that a URL bears it.

    Wire
    ----
    ``jas.{key id}.{claims}.{HMAC-SHA256}``; the claims are JSON, both are base64url without ``=``.
    """
    claims = json.dumps(astuple(capability), separators=(",", ":"), ensure_ascii=False)
    signed = f"jas.{key_id}.{_packed(claims.encode('utf-8', 'surrogatepass'))}"
    return f"{signed}.{_mac(key, signed)}"


def read(text: str, find_key: Callable[[str], bytes | None]) -> Capability | None:
    """Return what a text opens if one of our keys signed it, expired or not; None otherwise.

    Nothing in it is looked at before its signature was found right, in a time that does not tell
    how much of it was.
    """
    form = _FORM.fullmatch(text) if len(text) <= MAX_CHARS else None
    key = find_key(form[1]) if form is not None else None
    if form is None or key is None:
        return None
    signed = text[: form.start(3) - 1]
    if not hmac.compare_digest(form[3], _mac(key, signed)):
        return None
    return _claims(form[2])


def _claims(packed: str) -> Capability | None:
    # Signed by us, perhaps by an older or newer version of us.
    try:
        return Capability(*json.loads(urlsafe_b64decode(packed + "=" * (-len(packed) % 4))))
    except (ValueError, TypeError, binascii.Error):
        return None


def _mac(key: bytes, signed: str) -> str:
    words = f"jupyter-agents-share\n{signed}".encode()
    return _packed(hmac.new(key, words, hashlib.sha256).digest())


def _packed(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")
