"""The handshake as a table of lies: only two sides that know the key come to a welcome."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_agents.errors import LinkError, LinkRefused, LinkVersionMismatch
from jupyter_agents.link import handshake
from jupyter_agents.link.frames import VERSION
from jupyter_agents.link.handshake import KernelHandshake, ServerHandshake, fingerprint

KEY = b"connection file key"
KERNEL_NONCE, SERVER_NONCE = "k" * 32, "s" * 64
WELCOME = {"server_id": "s1"}


def kernel(key=KEY, nonce=KERNEL_NONCE):
    return KernelHandshake(key, nonce, "1.0")


def server(key=KEY, nonce=SERVER_NONCE, kernel_id="k1"):
    def find(given):
        return (key, kernel_id) if given == fingerprint(key) else None

    return ServerHandshake(find, nonce, "2.0")


def talk(one, other):
    """Let both sides speak until the kernel is welcomed; returns every word."""
    words = [one.hello()]
    while words[-1] is not None:
        words.append(other.receive(words[-1], WELCOME))
        words.append(one.receive(words[-1]))
    return words


def test_both_know_the_key():
    """Two sides with the key come to a welcome in four words."""
    one, other = kernel(), server()
    words = talk(one, other)
    assert len(words) == 5
    assert one.welcome == WELCOME
    assert one.kernel_id == other.kernel_id == "k1"
    assert other.done


def test_words_are_as_documented():
    """Each word has its fields and no more."""
    hello, challenge, proof, welcome, end = talk(kernel(), server())
    assert set(hello) == {"version", "package", "fingerprint", "nonce"}
    assert set(challenge) == {"version", "package", "nonce", "kernel_id", "proof"}
    assert set(proof) == {"proof"}
    assert welcome == {"welcome": WELCOME}
    assert end is None
    assert hello["version"] == challenge["version"] == VERSION
    assert (hello["package"], challenge["package"]) == ("1.0", "2.0")


def test_key_never_travels():
    """No word holds the key or anything that would do in its place in another conversation."""
    words = talk(kernel(), server())
    others = talk(kernel(nonce="x" * 32), server(nonce="y" * 32))
    assert KEY.decode() not in str(words)
    assert words[1]["proof"] != others[1]["proof"]
    assert words[2]["proof"] != others[2]["proof"]
    assert words[1]["proof"] != words[2]["proof"]


# HMAC fills a short key up with zeros; real ones are text
@given(st.text("0123456789abcdef-", max_size=40), st.text("0123456789abcdef-", max_size=40))
def test_fingerprint_names_the_key(one, other):
    """Equal keys have equal fingerprints, different ones different, 32 hexadecimal digits each."""
    name = fingerprint(one.encode())
    assert (name == fingerprint(other.encode())) is (one == other)
    assert len(name) == 32
    int(name, 16)


def test_server_without_the_kernel():
    """A server that does not manage the kernel says so."""
    with pytest.raises(LinkRefused, match="does not manage that kernel"):
        server(b"another").receive(kernel().hello(), WELCOME)


def test_server_that_only_knows_the_fingerprint():
    """A process that squats on the socket cannot prove the key and is left."""
    one = kernel()
    liar = ServerHandshake(lambda given: (b"guess", "k1"), SERVER_NONCE, "2.0")
    challenge = liar.receive(one.hello(), WELCOME)
    with pytest.raises(LinkRefused, match="The server did not prove"):
        one.receive(challenge)
    assert one.welcome is None


def test_kernel_that_only_knows_the_fingerprint():
    """A process that saw a hello cannot finish the conversation."""
    other = server()
    other.receive(kernel().hello(), WELCOME)
    with pytest.raises(LinkRefused, match="The kernel did not prove"):
        other.receive({"proof": "0" * 64}, WELCOME)
    assert not other.done


def test_replayed_words_fail():
    """A recorded hello and proof are worth nothing against another nonce."""
    hello, _, proof, *_ = talk(kernel(), server())
    other = server(nonce="z" * 64)
    other.receive(hello, WELCOME)
    with pytest.raises(LinkRefused, match="did not prove"):
        other.receive(proof, WELCOME)


def test_reflected_proof_fails():
    """The server's own proof, sent back, does not prove the kernel."""
    other = server()
    challenge = other.receive(kernel().hello(), WELCOME)
    with pytest.raises(LinkRefused, match="did not prove"):
        other.receive({"proof": challenge["proof"]}, WELCOME)


def test_proofs_are_tied_to_both_nonces():
    """Exchanging one nonce in the middle breaks the proof."""
    one, other = kernel(), server()
    challenge = other.receive(one.hello(), WELCOME)
    with pytest.raises(LinkRefused):
        one.receive({**challenge, "nonce": "m" * 64})
    other = server()
    challenge = other.receive({**kernel().hello(), "nonce": "m" * 32}, WELCOME)
    with pytest.raises(LinkRefused):
        kernel().receive(challenge)


def test_welcome_before_the_proof_is_refused():
    """A server cannot skip its proof by welcoming at once."""
    one = kernel()
    with pytest.raises(LinkRefused):
        one.receive({"welcome": WELCOME})
    assert one.welcome is None


def test_second_hello_is_refused():
    """An open link has no second handshake."""
    one, other = kernel(), server()
    talk(one, other)
    with pytest.raises(LinkRefused, match="second hello"):
        other.receive(kernel().hello(), WELCOME)


@pytest.mark.parametrize("theirs", ["0", VERSION + ".1", ""])
def test_versions_must_be_equal(theirs):
    """Both sides name both versions, and say what to do."""
    with pytest.raises(LinkVersionMismatch, match="install the same") as caught:
        server().receive({**kernel().hello(), "version": theirs}, WELCOME)
    assert (caught.value.ours, caught.value.theirs) == (VERSION, theirs)
    with pytest.raises(LinkVersionMismatch) as caught:
        kernel().receive({"version": theirs, "error": "another version"})
    assert (caught.value.ours, caught.value.theirs) == (VERSION, theirs)


def test_version_is_looked_at_first():
    """A server of another version is named as such, whatever else its words would mean."""
    with pytest.raises(LinkVersionMismatch):
        server().receive({"version": "999"}, WELCOME)


def test_refusal_is_passed_on():
    """What the server says when it refuses is what the kernel raises."""
    word = ServerHandshake.refusal(LinkRefused("No room"))
    assert word == {"error": "No room", "version": VERSION}
    with pytest.raises(LinkRefused, match="No room"):
        kernel().receive(word)


def test_refusal_after_the_proof_is_heard():
    """A server may still refuse when the kernel has proved itself."""
    one, other = kernel(), server()
    one.receive(other.receive(one.hello(), WELCOME))
    with pytest.raises(LinkRefused, match="replaced"):
        one.receive({"error": "replaced"})


@pytest.mark.parametrize("field", ["version", "fingerprint", "nonce"])
@pytest.mark.parametrize("value", [None, 7, [], {}, True])
def test_malformed_hello_is_refused(field, value):
    """A hello that lacks a field, or has another type there, is refused."""
    hello = kernel().hello()
    with pytest.raises(LinkError):
        server().receive({**hello, field: value}, WELCOME)
    del hello[field]
    with pytest.raises(LinkError):
        server().receive(hello, WELCOME)


@pytest.mark.parametrize("field", ["nonce", "proof"])
@pytest.mark.parametrize("value", [None, 7, []])
def test_malformed_challenge_is_refused(field, value):
    """The same for the server's word."""
    one = kernel()
    challenge = server().receive(one.hello(), WELCOME)
    with pytest.raises(LinkRefused):
        one.receive({**challenge, field: value})


@pytest.mark.parametrize("proof", ["é" * 64, "\ud800", "", "0" * 10_000])
def test_odd_proofs_are_refused(proof):
    """A proof of any length or alphabet is compared, and refused, without an error of ours."""
    other = server()
    other.receive(kernel().hello(), WELCOME)
    with pytest.raises(LinkRefused):
        other.receive({"proof": proof}, WELCOME)
    challenge = {**server().receive(kernel().hello(), WELCOME), "proof": proof}
    with pytest.raises(LinkRefused):
        kernel().receive(challenge)


def test_short_nonces_are_refused():
    """A nonce that could be guessed or repeated is not accepted from either side."""
    short = "n" * (handshake.NONCE_CHARS - 1)
    with pytest.raises(LinkRefused, match="too short"):
        server().receive(kernel(nonce=short).hello(), WELCOME)
    challenge = server(nonce=short).receive(kernel().hello(), WELCOME)
    with pytest.raises(LinkRefused, match="too short"):
        kernel().receive(challenge)


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text())))
def test_any_word_is_an_answer_or_a_link_error(word):
    """No word from outside raises anything but a LinkError."""
    for side in (lambda: server().receive(word, WELCOME), lambda: kernel().receive(word)):
        try:
            side()
        except LinkError:
            pass
