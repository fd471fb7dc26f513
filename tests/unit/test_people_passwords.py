"""Passwords: hashed, compared, bounded in length and number; one that nobody has costs the same."""

import threading

import pytest
from argon2 import extract_parameters
from argon2.profiles import CHEAPEST

from core.errors import UNAVAILABLE, VALIDATION, PlatformError
from gateway.accounts import passwords
from gateway.accounts.passwords import LENGTH_MAX, PARAMETERS, Passwords, checked_password

GOOD = "correct horse battery"


@pytest.fixture(scope="module")
def cheap():
    return Passwords(CHEAPEST)


def test_what_is_kept_is_argon2id_with_our_parameters():
    kept = Passwords().hash(GOOD)
    assert extract_parameters(kept) == PARAMETERS
    assert kept.startswith("$argon2id$")
    assert len(kept) <= 256


def test_it_matches_itself_only_and_no_hash_twice(cheap):
    kept = cheap.hash(GOOD)
    assert cheap.matches(kept, GOOD)
    assert not cheap.matches(kept, GOOD + "!")
    assert kept != cheap.hash(GOOD)
    assert cheap.matches(cheap.hash("café con leche"), "café con leche")
    assert cheap.matches(cheap.hash("lone \ud800 surrogate"), "lone \ud800 surrogate")
    assert not cheap.matches("not a hash", GOOD)
    assert not cheap.matches(cheap.hash("x" * LENGTH_MAX), "x" * (LENGTH_MAX + 1))


def test_for_nobody_a_hash_of_the_same_cost_is_verified(cheap, monkeypatch):
    verified = []
    original = type(cheap._hasher).verify

    def verify(self, kept, password):
        verified.append(extract_parameters(kept))
        return original(self, kept, password)

    monkeypatch.setattr(type(cheap._hasher), "verify", verify)
    assert not cheap.matches(None, GOOD)
    assert not cheap.matches(None, "nobody's")
    assert not cheap.matches(cheap.hash(GOOD), "wrong")
    assert verified == [CHEAPEST] * 3


def test_other_parameters_are_outdated(cheap):
    kept = cheap.hash(GOOD)
    assert not cheap.outdated(kept)
    assert Passwords().outdated(kept)


def test_only_so_many_at_once(monkeypatch):
    crowded = Passwords(CHEAPEST, at_once_max=1, wait_s=0.01)
    kept = crowded.hash(GOOD)
    inside, leave = threading.Event(), threading.Event()

    def slow(_password):
        inside.set()
        assert leave.wait(10)
        return b""

    original = passwords._bytes
    monkeypatch.setattr(passwords, "_bytes", slow)
    first = threading.Thread(target=crowded.hash, args=(GOOD,))
    first.start()
    assert inside.wait(10)
    with pytest.raises(PlatformError) as refused:
        crowded.matches(kept, GOOD)
    assert refused.value.kind is UNAVAILABLE
    leave.set()
    first.join(10)
    monkeypatch.setattr(passwords, "_bytes", original)
    assert crowded.matches(kept, GOOD)


@pytest.mark.parametrize("password", ["short", "x" * 20, "ab" * 10, "x" * 300, "somebody@example.com", ""])
def test_what_is_easy_to_guess_is_refused(password):
    with pytest.raises(PlatformError) as refused:
        checked_password(password, email="somebody@example.com")
    assert (refused.value.kind, refused.value.param) == (VALIDATION, "password")


def test_a_long_one_is_fine():
    assert checked_password(GOOD, email=None) == GOOD
