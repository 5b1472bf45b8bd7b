"""How classes, instances, connections and tags are called on a URL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_agents.errors import AddressError
from jupyter_agents.protocol.names import (
    TOO_FEW_SEGMENTS,
    Address,
    check_connection_id,
    check_tags,
    kebab_case,
    readable_case,
    spellings,
    split_path,
)
from tests.wire.transcript import Transcript


@pytest.mark.parametrize(
    ("class_name", "kebab", "readable"),
    [
        ("ChatAgent", "chat-agent", "chat-agent"),
        ("AIThing", "a-i-thing", "ai-thing"),
        ("MyHTTPAgent2", "my-h-t-t-p-agent2", "my-http-agent2"),
        ("MY_UPPER", "my-upper", "my-upper"),
        ("lower_snake", "lower-snake", "lower-snake"),
        ("camelBinding", "camel-binding", "camel-binding"),
        ("Digits2Go", "digits2-go", "digits2-go"),
        ("GPT4Agent", "g-p-t4-agent", "gpt4-agent"),
        ("S3", "s3", "s3"),
        ("X", "x", "x"),
        ("Trailing_", "trailing", "trailing"),
        ("My_Agent", "my--agent", "my-agent"),
        ("_Private", "--private", "private"),
        ("Café", "café", "café"),
        ("_", "", ""),
    ],
)
def test_class_name_has_two_spellings(class_name, kebab, readable):
    """A class name is spelled as the SDK's clients do, and with its acronyms whole."""
    assert kebab_case(class_name) == kebab
    assert readable_case(class_name) == readable


def test_recorded_bindings_are_spelled_alike():
    """Each binding that the SDK served in recording 28 is found under our spelling."""
    bindings = ["MY_UPPER_BINDING", "snake_binding", "camelBinding", "AIThing", "Trailing_"]
    bindings += ["Digits2Go", "X", "MyHTTPAgent2", "lower_snake"]
    served = Transcript.load(28).accepted_urls()
    assert served == [f"/agents/{kebab_case(binding)}/n" for binding in bindings]


@pytest.mark.parametrize(
    ("class_name", "slug", "expected"),
    [
        ("AIThing", None, ("a-i-thing", "ai-thing", "AIThing")),
        ("ChatRoom", None, ("chat-room", "ChatRoom")),
        ("x", None, ("x",)),
        ("_", None, ("_",)),
        ("AIThing", "ai", ("ai", "AIThing")),
        ("Room", "Room", ("Room",)),
        ("Room", "a.b_c~d-1", ("a.b_c~d-1", "Room")),
    ],
)
def test_spellings_start_with_the_canonical_one(class_name, slug, expected):
    """The first spelling is canonical; a slug replaces the derived ones; none is there twice."""
    assert spellings(class_name, slug) == expected


@pytest.mark.parametrize("slug", ["", "a/b", "a b", "-a", "a-", "ä", "..", "a\n", "a?b"])
def test_slug_is_one_plain_segment(slug):
    """A slug that would need encoding, or reads like a path, is refused."""
    with pytest.raises(AddressError, match="slug"):
        spellings("Room", slug)


@pytest.mark.parametrize(
    ("path", "agent", "name", "tail"),
    [
        ("chat/lobby", "chat", "lobby", ""),
        ("/chat/lobby", "chat", "lobby", ""),
        ("chat/lobby/", "chat", "lobby", ""),
        ("chat/lobby/x/y", "chat", "lobby", "/x/y"),
        ("chat/lobby/x/", "chat", "lobby", "/x/"),
        ("//chat///lobby//x//y", "chat", "lobby", "/x/y"),
        ("chat/a%20b", "chat", "a b", ""),
        ("chat/a%2Fb/%2F", "chat", "a/b", "/%2F"),
        ("chat/a%2520", "chat", "a%20", ""),
        ("chat/a+b", "chat", "a+b", ""),
        ("caf%C3%A9/%E2%82%AC", "café", "€", ""),
        ("chat/%zz", "chat", "%zz", ""),
        ("chat/" + "n" * 1024, "chat", "n" * 1024, ""),
    ],
)
def test_path_names_an_address_and_a_tail(path, agent, name, tail):
    """Doubled slashes count once, names are decoded once, and the tail stays as it is."""
    assert split_path(path) == (Address(agent, name), tail)


@pytest.mark.parametrize("path", ["", "/", "chat", "chat/", "//chat//"])
def test_path_with_too_few_segments_is_refused(path):
    """A path without an instance names nobody, and the error says that this is why."""
    with pytest.raises(AddressError) as caught:
        split_path(path)
    assert caught.value.why == TOO_FEW_SEGMENTS


@pytest.mark.parametrize("name", ["n" * 1025, "%E2%82%AC" * 342, "%FF", "%ED%A0%80", "\ud800"])
def test_unusable_name_is_refused(name):
    """A name is UTF-8 and has at most 1024 bytes of it."""
    with pytest.raises(AddressError) as caught:
        split_path(f"chat/{name}")
    assert caught.value.why != TOO_FEW_SEGMENTS


@given(agent=st.text(min_size=1, max_size=20), name=st.text(min_size=1, max_size=20))
def test_address_survives_its_path(agent, name):
    """An address that is written as a path and read again is the same address."""
    address = Address(agent, name)
    assert split_path(f"/{address.path}/tail") == (address, "/tail")


def test_address_shows_itself_decoded():
    """An address reads as its two parts with a slash between."""
    assert str(Address("chat-room", "a b")) == "chat-room/a b"


@pytest.mark.parametrize("connection_id", ["a", "x" * 256, "€ / %20"])
def test_connection_id_is_any_short_text(connection_id):
    """1 to 256 characters of any kind name a connection."""
    assert check_connection_id(connection_id) == connection_id


@pytest.mark.parametrize("connection_id", ["", "x" * 257])
def test_connection_id_has_limits(connection_id):
    """An empty or longer id is refused."""
    with pytest.raises(AddressError):
        check_connection_id(connection_id)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (None, ("id",)),
        ([], ("id",)),
        (["a", "b"], ("id", "a", "b")),
        (("b", "id", "a"), ("id", "b", "a")),
        (iter(["t" * 256]), ("id", "t" * 256)),
        ([*"abcdefghi", "id"], ("id", *"abcdefghi")),
    ],
)
def test_tags_begin_with_the_id(tags, expected):
    """A connection's tags are its id, once, and then the author's."""
    assert check_tags("id", tags) == expected


@pytest.mark.parametrize(
    ("tags", "error", "sentence"),
    [
        ("admin", TypeError, "not one string"),
        (b"admin", TypeError, "not one string"),
        ([1], TypeError, "not int"),
        ([""], ValueError, "not 0"),
        (["t" * 257], ValueError, "not 257"),
        ([*"abcdefghij"], ValueError, "9 tags besides its id, not 10"),
    ],
)
def test_unusable_tags_are_refused(tags, error, sentence):
    """Tags are at most 9 non-empty strings of at most 256 characters."""
    with pytest.raises(error, match=sentence):
        check_tags("id", tags)
