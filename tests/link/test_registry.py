"""Who serves what: addresses never meet, and nobody takes over silently."""

from __future__ import annotations

import pytest

from jupyter_agents.errors import AgentNotFound
from jupyter_agents.link.frames import pack_object
from jupyter_agents.link.registry import Registry


class Port:
    """A host that only has a name and a notebook."""

    def __init__(self, name, notebook=None):
        self.id = name
        self.about = {"kernel_id": name, "notebook": notebook}


def wish(agent="chat-room", class_name="ChatRoom", *more, **options):
    """The object of a SERVE frame."""
    return {
        "agent": agent,
        "class": class_name,
        "spellings": [agent, *more, class_name],
        "takeover": options.pop("takeover", False),
        "options": options,
    }


@pytest.fixture
def registry():
    """ChatRoom is served by the kernel of a.ipynb."""
    found = Registry()
    found.put(OWNER, wish()).host = OWNER
    return found


OWNER, OTHER = Port("k1", "a.ipynb"), Port("k2", "b.ipynb")


@pytest.mark.parametrize("spelling", ["chat-room", "ChatRoom"])
def test_every_spelling_finds_the_class(registry, spelling):
    """A class is found under each of its spellings."""
    assert registry.find(spelling).agent == "chat-room"


@pytest.mark.parametrize("spelling", ["chat_room", "CHAT-ROOM", "", "chat-room/x"])
def test_unknown_spelling_names_what_is_served(registry, spelling):
    """Anything else is not found, and the error lists what there is."""
    registry.put(OWNER, wish("beta", "Beta"))
    with pytest.raises(AgentNotFound) as caught:
        registry.find(spelling)
    assert caught.value.known == ("beta", "chat-room")


def test_canonical_address_is_always_a_spelling():
    """A host that forgets to list the address itself is reached there all the same."""
    registry = Registry()
    registry.put(OWNER, {"agent": "a", "class": "A", "spellings": []})
    assert registry.find("a").spellings == ("a",)


@pytest.mark.parametrize(
    ("host", "asked", "words"),
    [
        (OWNER, wish(), None),
        (OWNER, wish(takeover=True), None),
        (OTHER, wish(), "ChatRoom is served already, by a.ipynb"),
        (OTHER, wish(takeover=True), None),
        (OTHER, wish("other", "Other"), None),
        (OWNER, wish("other", "Other", "chat-room"), 'meet at agents/chat-room; give one'),
        (OTHER, wish("other", "ChatRoom"), "ChatRoom and ChatRoom (served by a.ipynb) meet"),
        (OTHER, wish("ChatRoom", "Other", takeover=True), "meet at agents/ChatRoom"),
    ],
)  # fmt: skip
def test_refusals(registry, host, asked, words):
    """Who may serve what while somebody serves it, as a sentence that says what to do."""
    said = registry.refusal(host, asked)
    assert (words is None) == (said is None)
    assert words is None or words in said


@pytest.mark.parametrize(
    ("host", "is_let"),
    [
        (Port("k1", "a.ipynb"), True),
        (Port("k1", "moved.ipynb"), True),
        (Port("k3", "a.ipynb"), True),
        (Port("k2", "b.ipynb"), False),
        (Port("k2", None), False),
    ],
)
def test_parked_class_waits_for_its_own(registry, host, is_let):
    """A parked class waits for its kernel or its notebook's next one; others must ask."""
    registry.find("chat-room").host = None
    assert (registry.refusal(host, wish()) is None) is is_let
    assert registry.refusal(host, wish(takeover=True)) is None


def test_parked_without_a_notebook():
    """Two kernels that have no notebook are not the same one for that."""
    registry = Registry()
    registry.put(Port("k1"), wish())
    said = registry.refusal(Port("k2"), wish())
    assert "has clients that wait for k1" in said
    assert "takeover=True" in said


def test_serving_again_replaces():
    """A class that is served again keeps its record, and takes its new spellings and options."""
    registry = Registry()
    first = registry.put(OWNER, wish("a", "A", "old", gate=True))
    again = registry.put(OWNER, wish("a", "B", "new", cors=True))
    assert again is first
    assert (again.class_name, again.options) == ("B", {"cors": True})
    assert registry.find("new") is registry.find("B") is first
    for gone in ("old", "A"):
        with pytest.raises(AgentNotFound):
            registry.find(gone)


def test_dropped_class_leaves_nothing(registry):
    """After a drop no spelling leads anywhere, and another class may have the address."""
    served = registry.find("chat-room")
    assert registry.holds(served)
    registry.drop(served)
    assert not registry.holds(served)
    assert list(registry) == []
    new = registry.put(OTHER, wish("x", "ChatRoom"))
    assert registry.find("ChatRoom") is new
    assert not registry.holds(served)


@pytest.mark.parametrize(
    "broken",
    [
        {"agent": "a"},
        {"agent": "a", "class": "A"},
        {"agent": "a", "spellings": ["a"]},
        {"agent": "a", "class": "A", "spellings": 7},
        {"agent": "a", "class": "A", "spellings": ["a"], "options": 7},
    ],
)
def test_malformed_wish_leaves_nothing(broken):
    """A wish that lacks something raises and is not half remembered."""
    registry = Registry()
    with pytest.raises((KeyError, TypeError, ValueError)):
        registry.put(OWNER, broken)
    assert list(registry) == []
    with pytest.raises(AgentNotFound):
        registry.find("a")


def test_records_of_a_host(registry):
    """A host's connections are those of the classes that it serves now."""
    registry.put(OTHER, wish("b", "B")).host = OTHER
    registry.find("chat-room").records.update({1: "one", 2: "two"})
    registry.find("b").records[3] = "three"
    assert registry.records_of(OWNER) == ["one", "two"]
    registry.find("chat-room").host = None
    assert registry.records_of(OWNER) == []


def test_tallies_are_the_owners(registry):
    """What agents did is passed on for the classes of this host, and for no others'."""
    told = []
    tallies = [{"agent": "chat-room", "count": 2}, {"agent": "nobody", "count": 1}]
    for host in (OWNER, OTHER):
        registry.tallied(
            lambda *event: told.append(event), host, 0, pack_object({"tallies": tallies})
        )
    assert told == [("tally", {"agent": "chat-room", "count": 2})]


def test_class_says_what_serves_it_again(registry):
    """The source of an autostart is kept with the class, until it is served without one."""
    registry.put(OWNER, {**wish(), "autostart": "serve(ChatRoom)"})
    assert registry.find("chat-room").autostart == "serve(ChatRoom)"
    registry.put(OWNER, wish())
    assert registry.find("chat-room").autostart == ""
