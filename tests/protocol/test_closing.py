"""How an error or an end looks from outside."""

from __future__ import annotations

import pytest

from jupyter_agents import errors
from jupyter_agents.errors import AddressError, AgentNotFound
from jupyter_agents.protocol.closing import (
    check_close,
    close_code,
    http_status,
    is_final,
    may_be_received,
    rpc_text,
)
from jupyter_agents.protocol.names import TOO_FEW_SEGMENTS


def test_final_codes_are_the_sdk_clients():
    """1008 and 4000 to 4999 end an SDK client's attempts; nothing else does."""
    assert [code for code in range(6000) if is_final(code)] == [1008, *range(4000, 5000)]


def test_reserved_codes_may_not_be_received():
    """A close frame carries 1000-1003, 1007-1014 or 3000-4999 (RFC 6455)."""
    legal = [*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)]
    assert [code for code in range(70000) if may_be_received(code)] == legal


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999])
def test_author_may_close_with_a_legal_code(code):
    """Legal codes, and reasons of up to 123 bytes, pass."""
    check_close(code, "€" * 41)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, -1])
def test_author_may_not_close_with_a_reserved_code(code):
    """A reserved code is refused by its number."""
    with pytest.raises(ValueError, match=str(code)):
        check_close(code)


def test_close_reason_is_short():
    """A reason is counted in UTF-8 bytes, and refused rather than cut."""
    with pytest.raises(ValueError, match="has 124"):
        check_close(1000, "€" * 41 + "x")


@pytest.mark.parametrize(
    ("code", "reason", "sentence"),
    [
        (True, "", "integer, not bool"),
        ("1000", "", "integer, not str"),
        (1000.0, "", "not float"),
        (1000, b"", "string, not bytes"),
        (1000, None, "string, not NoneType"),
    ],
)
def test_close_wants_an_integer_and_a_string(code, reason, sentence):
    """Arguments of the wrong type are named."""
    with pytest.raises(TypeError, match=sentence):
        check_close(code, reason)


class BrokenError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "text", "data"),
    [
        (ValueError("kaput"), "kaput", None),
        (ValueError(), "ValueError", None),
        (KeyError("name"), "KeyError: 'name'", None),
        (errors.PublicError("sold out", {"left": 0}), "sold out", {"left": 0}),
        (errors.PublicError("", 0), "", 0),
        (errors.StateRejected("too low"), "too low", None),
        (errors.ConnectionReadonly("c"), "Connection is readonly", None),
        (BrokenError(), "BrokenError", None),
        (OSError("file \udcff"), "file ?", None),
    ],
)
def test_failed_call_shows_its_message(error, text, data):
    """The caller sees the message and public data, and always some text that can be sent."""
    assert rpc_text(error) == (text, data)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AgentNotFound("a/b"), 404),
        (AddressError("a", TOO_FEW_SEGMENTS), 404),
        (AddressError("a", "is longer than 1024 bytes"), 400),
        (errors.ConnectionReadonly(), 403),
        (errors.StateRejected(), 400),
        (errors.PublicError("no"), 400),
        (errors.LinkLost(), 503),
        (errors.LinkRefused(), 503),
        (errors.HostStopped(), 503),
        (errors.CallTimeout("m", 1), 504),
        (PermissionError(), 500),
        (ValueError(), 500),
    ],
)
def test_error_has_an_http_status(error, status):
    """Our own errors have their status; an author's error is a 500, whatever its type says."""
    assert http_status(error) == status


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RemoteProtocolError("bad"), 1002),
        (errors.LocalProtocolError("big", 1009), 1009),
        (errors.ConnectionClosed(4001), 4001),
        (errors.ConnectionClosed(1006), 1011),
        (AgentNotFound("a/b"), 1013),
        (AddressError("a"), 1008),
        (errors.LinkLost(), 1012),
        (errors.HostStopped(), 1012),
        (RuntimeError("secret"), 1011),
    ],
)
def test_error_has_a_close_code(error, code):
    """Protocol errors know their code, the platform's say when to come back, the rest is 1011."""
    assert close_code(error) == code


def test_author_errors_never_end_a_client_for_good():
    """An exception of an author's code must not make SDK clients give up."""
    assert not is_final(close_code(ValueError()))
