import pytest

from tramontane.errors import ConfigurationError
from tramontane.secret import Secret
from tramontane.wire.config import Retries, Timeouts, checked_url, configure

NOTHING = {"api_key": None, "base_url": None, "timeouts": None, "retries": None}


def test_the_environment_fills_what_is_not_said():
    environ = {"TRAMONTANE_API_KEY": "tmt_a", "TRAMONTANE_BASE_URL": "https://api.example/v1/"}
    config = configure(environ, **NOTHING)
    assert config.api_key == Secret("tmt_a")
    assert config.base_url == "https://api.example"
    assert (config.timeouts, config.retries) == (Timeouts(), Retries())


def test_arguments_win():
    environ = {"TRAMONTANE_API_KEY": "tmt_a", "TRAMONTANE_BASE_URL": "https://api.example"}
    said = {"api_key": " tmt_b\n", "base_url": "http://[::1]:8000/prefix", "timeouts": Timeouts(total_s=1)}
    config = configure(environ, **{**NOTHING, **said})
    assert config.api_key.reveal() == "tmt_b"
    assert config.base_url == "http://[::1]:8000/prefix"
    assert config.timeouts.total_s == 1


def test_without_anything_it_is_the_machine_itself():
    assert configure({"TRAMONTANE_API_KEY": "k"}, **NOTHING).base_url == "http://127.0.0.1:8000"


@pytest.mark.parametrize("key", [None, "", "  ", "tmt_\nb", "tmt_é"])
def test_a_key_that_is_none(key):
    with pytest.raises(ConfigurationError):
        configure({}, **{**NOTHING, "api_key": key})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example",
        "ftp://api.example",
        "http://",
        "http://[::1",
        "http://u:p@api.example",
        "http://a?b",
        "http://a#b",
    ],
)
def test_an_address_that_is_none(url):
    with pytest.raises(ConfigurationError) as caught:
        checked_url(url)
    assert "p@" not in str(caught.value)


def test_a_secret_shows_itself_to_nobody():
    secret = Secret("tmt_hidden")
    assert "hidden" not in f"{secret} {secret!r} {[secret]} {secret:}"
    assert secret.reveal() == "tmt_hidden"
    assert secret == Secret("tmt_hidden")
    assert secret != Secret("another")
    assert secret != "tmt_hidden"
    assert hash(secret) == hash(Secret("tmt_hidden"))
    config = configure({}, **{**NOTHING, "api_key": "tmt_hidden"})
    assert "hidden" not in repr(config)
