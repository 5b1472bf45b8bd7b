"""The errors: the tree in the docstring is the tree of the classes, and each says its facts."""

from __future__ import annotations

import inspect
import pickle

import pytest

from jupyter_agents import errors

CLASSES = [
    c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
]


def drawn_tree() -> dict[str, str | None]:
    """Name → base, as drawn with branches in the module's docstring."""
    tree: dict[str, str | None] = {}
    path: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        indent, _, name = line.rpartition("── ")
        if name.isidentifier() and (indent or name == "AgentsError"):
            depth = (len(indent) + 3) // 4
            path = [*path[:depth], name]
            tree[name] = path[-2] if depth else None
    return tree


def written_tree() -> dict[str, str | None]:
    """Name → our own base, as the classes have it."""
    return {
        cls.__name__: next((b.__name__ for b in cls.__bases__ if b in CLASSES), None)
        for cls in CLASSES
    }


def test_docstring_draws_the_tree_of_the_classes():
    """The tree in the module's docstring shows every exception under its base."""
    assert drawn_tree() == written_tree()


def test_only_the_root_has_no_base_of_ours():
    """`except AgentsError` catches every exception of the package."""
    assert [name for name, base in written_tree().items() if base is None] == ["AgentsError"]


def test_all_lists_every_error():
    """`__all__` names every exception, sorted."""
    assert errors.__all__ == sorted(cls.__name__ for cls in CLASSES)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_error_is_documented(cls):
    """Every exception has a docstring of its own."""
    assert cls.__doc__


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (errors.AddressError("a b"), ValueError),
        (errors.AgentNotFound("chat/x"), LookupError),
        (errors.CallTimeout("add", 3), TimeoutError),
        (errors.StateRejected("too hot"), ValueError),
        (errors.ConnectionReadonly("c1"), PermissionError),
        (errors.HostStopped(), RuntimeError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_error_is_also_pythons_own_word(error, base):
    """Where Python has the word, the exception is that, too."""
    assert isinstance(error, base)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (errors.AddressError(""), "'' is not a usable address"),
        (errors.AddressError("x" * 90), repr("x" * 79 + "…") + " is not a usable address"),
        (errors.AgentNotFound("chat"), "No agent is served at 'chat'; served now: nothing"),
        (
            errors.AgentNotFound("chat", ("room", "log")),
            "No agent is served at 'chat'; served now: room, log",
        ),
        (errors.CallFailed("add", "no numbers"), "no numbers"),
        (errors.CallTimeout("add", 1.5), "add did not answer within 1.5 s"),
        (
            errors.CallAborted("add", transmitted=False),
            "add: Connection closed (it was never sent)",
        ),
        (errors.CallAborted("add", transmitted=True), "add: Connection closed (it may have run)"),
        (errors.StateRejected(), "State update rejected"),
        (errors.ConnectionReadonly("c1"), "Connection is readonly"),
        (errors.ConnectionClosed(4001), "Connection closed with 4001"),
        (errors.ConnectionClosed(4001, "bye"), "Connection closed with 4001: bye"),
        (errors.LinkLost(), "The link to the host was lost"),
        (errors.LinkLost("k1"), "The link to k1 was lost"),
        (errors.HostStopped(), "The agents' thread has stopped; run serve(...) again"),
        (errors.HostStopped("Interpreter is going"), "Interpreter is going"),
        (errors.PublicError("no seats", {"left": 0}), "no seats"),
        (errors.LocalProtocolError("sent after close"), "sent after close"),
    ],
)
def test_error_says_its_facts(error, sentence):
    """The sentence is built from the attributes, and `repr` shows it."""
    assert str(error) == sentence
    assert repr(error) == f"{type(error).__name__}({sentence!r})"


def test_version_mismatch_names_both_and_the_way_out():
    """A mismatch names both versions and what to install."""
    text = str(errors.LinkVersionMismatch("2", "1"))
    assert "link 2" in text
    assert "has jupyter_agents link" in text
    assert "install the same jupyter_agents" in text


def test_protocol_error_knows_its_close_code():
    """A broken rule is answered with 1002 unless the raiser knows better."""
    assert errors.RemoteProtocolError("bad").close_code == 1002
    assert errors.RemoteProtocolError("big", 1009).close_code == 1009


@pytest.mark.parametrize(
    "error",
    [errors.AgentNotFound("a", ("b",)), errors.ConnectionReadonly("c"), errors.HostStopped("x")],
    ids=lambda error: type(error).__name__,
)
def test_error_can_be_pickled(error):
    """An exception keeps its facts across processes."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
