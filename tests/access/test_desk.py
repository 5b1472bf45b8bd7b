"""What a kernel may do with links: all with those to its own agents, nothing with others."""

from __future__ import annotations

import pytest

from jupyter_agents.access.desk import Desk
from jupyter_agents.access.gate import Gate, GateLimits
from jupyter_agents.errors import AgentNotFound
from jupyter_agents.link.frames import Kind, pack_object, unpack_object
from jupyter_agents.link.records import Served


class Port:
    """A kernel's link, as the desk sees it."""

    id, full, ledger = "kernel", False, None

    def __init__(self) -> None:
        self.about: dict[str, str] = {}
        self.sent: list[tuple[int, int, bytes]] = []

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.sent.append((kind, number, payload))


class Office:
    """A desk, the kernel that asks, and what it serves."""

    def __init__(self) -> None:
        self.host, self.other = Port(), Port()
        self.gate = Gate(GateLimits(), None, lambda: 1_000_000.0)
        self.served = {
            "chat-room": Served("chat-room", "ChatRoom", (), self.host, {}, {"access": "link"}),
            "closed": Served("closed", "Closed", (), self.host, {}, {"access": "jupyter"}),
            "old": Served("old", "Old", (), self.host, {}),
            "theirs": Served("theirs", "Theirs", (), self.other, {}, {"access": "link"}),
            "parked": Served("parked", "Parked", (), None, {}, {"access": "link"}),
        }
        self.desk = Desk(self.gate, self.find)

    def find(self, agent: str) -> Served:
        if agent not in self.served:
            raise AgentNotFound(agent, ("chat-room",))
        return self.served[agent]

    def ask(self, do: str, **facts):
        """The answer of the desk."""
        self.desk.asked(self.host, 7, pack_object({"do": do, **facts}))
        kind, number, payload = self.host.sent.pop()
        assert (kind, number) == (Kind.SHARED, 7)
        assert not self.host.sent
        return unpack_object(payload)

    def share(self, agent="chat-room", **facts):
        """A link."""
        return self.ask("share", agent=agent, **{"name": "lobby", "expires_s": 60, **facts})


@pytest.fixture
def office():
    """A desk that knows five classes."""
    made = Office()
    yield made
    made.gate.close()


def test_a_link_is_made(office):
    """The answer has all that the link allows, and the one secret."""
    answer = office.share(readonly=True, max_connections=3, label="Ann")
    secret = answer.pop("secret")
    assert secret.startswith("jas.")
    link_id = answer.pop("id")
    assert answer == {
        "agent": "chat-room",
        "name": "lobby",
        "expires": 1_000_060,
        "readonly": True,
        "max_connections": 3,
        "label": "Ann",
        "connections": 0,
    }
    assert office.gate.shares.get(link_id).is_good(1_000_000)


@pytest.mark.parametrize("agent", ["closed", "old"])
def test_a_class_must_allow_links(office, agent):
    """Without ``access = "link"`` there is none, and the sentence says what to write."""
    assert 'access = "link"' in office.share(agent)["error"]


@pytest.mark.parametrize("agent", ["theirs", "parked", "nobody"])
@pytest.mark.parametrize("do", ["share", "list", "revoke"])
def test_another_kernels_agents_are_none_of_its_business(office, agent, do):
    """A kernel makes, sees and revokes links to what it serves itself, and nothing else."""
    answer = office.ask(do, agent=agent, name="lobby", expires_s=60, id="x")
    assert set(answer) == {"error"}


def test_listing_shows_no_secret(office):
    """What is good is listed, by instance or all, without what opens the door."""
    first, second = office.share(), office.share(name="office")
    listed = office.ask("list", agent="chat-room")["shares"]
    assert {one["id"] for one in listed} == {first["id"], second["id"]}
    assert "secret" not in listed[0]
    [one] = office.ask("list", agent="chat-room", name="office")["shares"]
    assert one["id"] == second["id"]


def test_who_shared_what_is_logged(office, caplog):
    """Links that are made and revoked stand in the server's log by their ids, in one line each."""
    caplog.set_level("INFO")
    made = office.share(name="two\nlines", label="x")
    office.ask("revoke", agent="chat-room", id=made["id"])
    first, second = (record.getMessage() for record in caplog.records)
    assert made["id"] in first
    assert made["id"] in second
    assert "\n" not in caplog.records[0].getMessage()
    assert made["secret"] not in caplog.text


def test_revoking(office):
    """A revoked link is no longer listed; one that is not the class's is not found."""
    made = office.share()
    office.served["second"] = Served("second", "S", (), office.host, {}, {"access": "link"})
    assert "no link" in office.ask("revoke", agent="second", id=made["id"])["error"]
    assert office.ask("revoke", agent="chat-room", id=made["id"]) == {"revoked": True}
    assert office.ask("list", agent="chat-room")["shares"] == []
    assert "no link" in office.ask("revoke", agent="chat-room", id="x")["error"]


@pytest.mark.parametrize("name", ["", "x" * 1025, "\ud800"])
def test_a_name_that_no_instance_can_have(office, name):
    """Is refused in words."""
    assert "name" in office.share(name=name)["error"]


def test_limits_are_said_to_the_kernel(office):
    """What the gate refuses arrives as a sentence."""
    assert "max_share_s" in office.share(expires_s=10**9)["error"]
    assert "links" in office.ask("burn", agent="chat-room")["error"]


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"do": "share"},
        {"do": "share", "agent": "chat-room"},
        {"agent": "chat-room"},
        {"do": "share", "agent": "chat-room", "name": "x", "expires_s": None},
        {"do": "share", "agent": "chat-room", "name": "x", "expires_s": "soon"},
        {"do": "share", "agent": "chat-room", "name": "x", "expires_s": 9, "max_connections": "m"},
        {"do": "share", "agent": "chat-room", "name": "x", "expires_s": 9, "max_connections": []},
        {
            "do": "share",
            "agent": "chat-room",
            "name": "x",
            "expires_s": 9,
            "max_connections": float("inf"),
        },
        {"do": "share", "agent": "chat-room", "name": "x", "expires_s": 10**400},
    ],
)
def test_nonsense_is_answered(office, question):
    """A question with missing or odd words is refused; it costs no kernel its link."""
    office.desk.asked(office.host, 1, pack_object(question))
    [(kind, number, payload)] = office.host.sent
    assert (kind, number) == (Kind.SHARED, 1)
    assert set(unpack_object(payload)) == {"error"}
