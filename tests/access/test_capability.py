"""What a link carries: only what we signed is read, and nothing of it can be changed."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_agents.access.capability import Capability, read, sign
from jupyter_agents.access.credentials import has_pass

KEY, KEY_ID = b"k" * 32, "0a1b2c3d"
LINK = Capability("0123456789abcdef", "chat-room", "lobby", 2_000_000_000, True, 30)
TEXT = sign(LINK, KEY_ID, KEY)


def find(key_id):
    """The one key there is."""
    return KEY if key_id == KEY_ID else None


def test_what_was_signed_is_read():
    """A link says what it was made to say."""
    assert read(TEXT, find) == LINK


@given(st.text(min_size=1, max_size=60), st.booleans(), st.none() | st.integers(1, 10**6))
def test_any_name_survives(name, readonly, most):
    """Every name that an instance can have comes back letter by letter, by a URL-safe text."""
    link = dataclasses.replace(LINK, name=name, readonly=readonly, max_connections=most)
    text = sign(link, KEY_ID, KEY)
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", text)
    assert read(text, find) == link


def test_every_character_counts():
    """A link of which one character was changed, taken away or added is none."""
    for at in range(len(TEXT)):
        other = "A" if TEXT[at] != "A" else "B"
        changed = TEXT[:at] + other + TEXT[at + 1 :]
        # the signature is compared as text: the bits that its last digit has too many count
        assert read(changed, find) is None, at
        assert read(TEXT[:at] + TEXT[at + 1 :], find) is None, at
    assert read(f"{TEXT}A", find) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jas.",
        "jas.a.b.c",
        f" {TEXT}",
        f"{TEXT}\n",
        f"x{TEXT}",
        TEXT * 100,
        "jas." + "a" * 99999,
    ],
)
def test_what_is_not_ours_is_refused(text):
    """Any other text, however long, opens nothing and raises nothing."""
    assert read(text, find) is None


def test_another_key_signs_another_link():
    """A link that somebody else's key signed opens nothing, also under the name of ours."""
    assert read(sign(LINK, KEY_ID, b"x" * 32), find) is None
    assert read(sign(LINK, "ffffffff", KEY), find) is None


def test_claims_of_another_version_are_refused():
    """A signed link with claims that this version does not know opens nothing."""

    @dataclasses.dataclass
    class Other:
        id: str = "a"
        more: int = 1

    assert read(sign(Other(), KEY_ID, KEY), find) is None  # type: ignore[arg-type]


def test_logs_know_its_form():
    """Whatever cleans logs and requests recognises a link by its form."""
    assert has_pass(TEXT)
