"""How facts are packed."""

from __future__ import annotations

from jupyter_agents.widgets.section import Parcel, Ring, ask_from, shortened


def test_ring_keeps_the_newest():
    """A ring forgets the oldest; its numbers go on."""
    ring = Ring(3)
    for letter in "abcde":
        ring.add(letter)
    assert ring.entries == {3: "c", 4: "d", 5: "e"}
    ring.clear()
    assert ring.add("f") == 6


def test_ring_gives_what_is_unseen_once():
    """The unseen are given once, the newest of them, with how many were left out."""
    ring = Ring(10)
    for letter in "abcde":
        ring.add(letter)
    assert ring.take(2) == ([(4, "d"), (5, "e")], 3)
    assert ring.take(2) == ([], 0)
    ring.add("f")
    assert ring.take(2) == ([(6, "f")], 0)


def test_ring_counts_what_left_before_it_was_seen():
    """What was pushed out unseen counts as left out."""
    ring = Ring(2)
    for letter in "abcde":
        ring.add(letter)
    assert ring.take(10) == ([(4, "d"), (5, "e")], 3)


def test_parcel_carries_large_values_beside_the_json():
    """A live parcel refers to buffers; a still picture has everything in the JSON."""
    parcel = Parcel()
    assert [parcel.attach(b"1"), parcel.attach(b"[2]")] == [{"buffer": 0}, {"buffer": 1}]
    assert parcel.buffers == [b"1", b"[2]"]
    still = Parcel(is_still=True)
    assert still.attach(b"[2]") == {"json": [2]}
    assert still.buffers == []


def test_question_with_nonsense_becomes_harmless():
    """Wrong types in a question become the empty ones."""
    ask = ask_from("v", {"ask": "x", "what": None, "given": [1]}, [])
    assert (ask.number, ask.what, ask.given) == (0, "None", {})


def test_long_texts_are_shortened():
    """A text is at most as long as it may be, and shows that something is missing."""
    assert [shortened("abc", 3), shortened("abcd", 3)] == ["abc", "ab…"]


def test_text_that_is_no_unicode_is_replaced():
    """Half a surrogate pair, which JSON cannot carry as UTF-8, does not stop a batch."""
    assert shortened("a\ud800", 9) == "a?"
