"""Keys: their shape, their checksum, their digest, and that nothing prints them."""

import string
from stat import S_IMODE

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from core.clock import SystemClock
from core.errors import SetupError
from core.ids import CountingIds, SystemIds
from core.secrets import read_secret, secret_file
from core.settings import read_settings
from gateway.accounts.keys import HINT_LENGTH, KEY_LENGTH, Pepper, Peppers, generate_key, key_id_of, same_digest
from gateway.accounts.settings import AccountSettings, peppers_of

BASE62 = string.digits + string.ascii_letters
A_KEY = generate_key(SystemIds(SystemClock())).key.get_secret_value()

numbers = st.integers(min_value=0, max_value=2**256 - 1)


class DrawnIds(CountingIds):
    """Hands out what a test drew."""

    def __init__(self, *drawn: int) -> None:
        super().__init__()
        self._drawn = list(drawn)

    def token(self, length_bytes: int) -> str:
        return f"{self._drawn.pop(0):0{2 * length_bytes}x}"


@given(numbers, numbers)
def test_a_key_tells_its_id_and_nothing_else_does(key_number, secret_number):
    made = generate_key(DrawnIds(key_number, secret_number))
    key = made.key.get_secret_value()
    prefix, key_id, rest = key.split("_")
    assert (prefix, key_id, len(key)) == ("tmt", made.id, KEY_LENGTH)
    assert set(key_id + rest) <= set(BASE62)
    assert key_id_of(key) == made.id
    assert key.endswith(made.hint)
    assert len(made.hint) == HINT_LENGTH


@given(st.integers(0, KEY_LENGTH - 1), st.characters())
def test_any_one_wrong_character_is_refused(place, character):
    mistyped = A_KEY[:place] + character + A_KEY[place + 1 :]
    assert key_id_of(mistyped) == (key_id_of(A_KEY) if mistyped == A_KEY else None)


@given(st.integers(0, KEY_LENGTH - 2))
def test_two_swapped_neighbours_are_refused(place):
    swapped = A_KEY[:place] + A_KEY[place + 1] + A_KEY[place] + A_KEY[place + 2 :]
    assert key_id_of(swapped) == (key_id_of(A_KEY) if swapped == A_KEY else None)


@given(st.text(max_size=200))
def test_other_words_are_no_keys(text):
    assert key_id_of(text) is None


MANGLED = {"empty": "", "cut": A_KEY[:-1], "longer": A_KEY + "0", "space": " " + A_KEY, "many": A_KEY * 1000}


@pytest.mark.parametrize("mangled", MANGLED.values(), ids=MANGLED)
def test_mangled_keys_are_refused(mangled):
    assert key_id_of(mangled) is None


def test_no_two_keys_are_alike():
    ids = SystemIds(SystemClock())
    made = [generate_key(ids) for _ in range(200)]
    assert len({key.id for key in made}) == len({key.key.get_secret_value() for key in made}) == 200


def test_a_digest_depends_on_the_pepper_its_version_and_the_whole_key():
    other = generate_key(CountingIds()).key.get_secret_value()
    digests = {
        Pepper(1, SecretStr("salt")).digest(A_KEY),
        Pepper(2, SecretStr("salt")).digest(A_KEY),
        Pepper(1, SecretStr("pepper")).digest(A_KEY),
        Pepper(1, SecretStr("salt")).digest(other),
    }
    assert len(digests) == 4
    assert len({digest.partition(":")[2] for digest in digests}) == 3
    assert same_digest(Pepper(1, SecretStr("salt")).digest(A_KEY), Pepper(1, SecretStr("salt")).digest(A_KEY))
    assert not any(A_KEY in digest for digest in digests)


def test_nothing_prints_a_key_or_a_pepper():
    made, pepper = generate_key(CountingIds()), Pepper(1, SecretStr("ground"))
    assert made.key.get_secret_value() not in f"{made} {made!r}"
    assert "ground" not in f"{pepper} {pepper!r}"


def test_a_pepper_is_made_once_and_only_its_owner_reads_it(tmp_path):
    settings = read_settings(AccountSettings, home=tmp_path / "home")
    first = peppers_of(settings)
    assert peppers_of(settings) == first
    path = tmp_path / "home" / "secrets" / "key_pepper.1"
    assert (S_IMODE(path.stat().st_mode), S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    assert len(first.current.secret.get_secret_value()) == 64
    assert list(path.parent.iterdir()) == [path]


def test_a_pepper_file_that_the_operator_names_is_never_made(tmp_path):
    named = tmp_path / "pepper"
    settings = read_settings(AccountSettings, home=tmp_path / "home", key_pepper_file=named)
    with pytest.raises(SetupError, match="cannot be read"):
        peppers_of(settings)
    named.write_text("ground\n")
    assert peppers_of(settings).current.secret.get_secret_value() == "ground"


def test_a_new_pepper_leaves_the_older_ones_known(tmp_path):
    settings = read_settings(AccountSettings, home=tmp_path)
    first = peppers_of(settings).current
    second = peppers_of(read_settings(AccountSettings, home=tmp_path, key_pepper_version=2))
    assert (second.current.version, second.older) == (2, (first,))
    assert second.digests(A_KEY) == (second.current.digest(A_KEY), first.digest(A_KEY))
    assert second.digest(A_KEY) == second.current.digest(A_KEY) != first.digest(A_KEY)
    assert peppers_of(settings) == Peppers(first, (second.current,)), "a process not yet restarted knows new keys"


def test_a_new_secret_keeps_the_id():
    ids = SystemIds(SystemClock())
    first = generate_key(ids)
    second = generate_key(ids, first.id)
    assert first.id == second.id == key_id_of(second.key.get_secret_value())
    assert first.key != second.key


@pytest.mark.parametrize(
    ("value", "networks"),
    [("", []), ("10.0.0.0/8", ["10.0.0.0/8"]), (" 127.0.0.1 , ::1/128,", ["127.0.0.1/32", "::1/128"])],
)
def test_trusted_proxies_are_networks(monkeypatch, value, networks):
    monkeypatch.setenv("TRAMONTANE_TRUSTED_PROXIES", value)
    assert [str(network) for network in read_settings(AccountSettings).trusted_proxies] == networks


@pytest.mark.parametrize("value", ["proxy.example", "10.0.0.1/8", "*"])
def test_other_words_are_no_trusted_proxies(monkeypatch, value):
    monkeypatch.setenv("TRAMONTANE_TRUSTED_PROXIES", value)
    with pytest.raises(SetupError, match="TRAMONTANE_TRUSTED_PROXIES"):
        read_settings(AccountSettings)


def test_a_secret_that_another_process_wrote_first_wins(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    monkeypatch.setattr("core.secrets.Path.exists", lambda _self: False)  # both saw that there was none
    first = secret_file(path, 16)
    assert secret_file(path, 16) == first == read_secret(path)


@pytest.mark.parametrize("content", ["", "two words\n", "\xff"])
def test_a_spoilt_secret_file_is_one_sentence(tmp_path, content):
    path = tmp_path / "secret"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(SetupError, match="secret file"):
        secret_file(path, 16)
