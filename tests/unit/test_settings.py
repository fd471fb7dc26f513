"""Passwords from files: whoever reads a URL finds them in it."""

import pytest
from pydantic import SecretStr

from core.errors import SetupError
from core.secrets import with_password
from core.settings import PlatformSettings, read_settings
from gateway.accounts.settings import AccountSettings


@pytest.fixture
def password_file(tmp_path):
    file = tmp_path / "password"
    file.write_text("p@ss/w:rd\n")
    return file


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://redis:6379/0", "redis://:a%40b@redis:6379/0"),
        ("rediss://worker@redis:6379/0?ssl_cert_reqs=none", "rediss://worker:a%40b@redis:6379/0?ssl_cert_reqs=none"),
        (
            "postgresql+psycopg://tramontane@postgres/tramontane",
            "postgresql+psycopg://tramontane:a%40b@postgres/tramontane",
        ),
        ("redis://user:old@[::1]:6379", "redis://user:a%40b@[::1]:6379"),
        ("unix:///run/redis.sock", "unix://:a%40b@/run/redis.sock"),
    ],
)
def test_a_password_takes_its_place_in_a_url(url, expected):
    assert with_password(SecretStr(url), SecretStr("a@b")).get_secret_value() == expected


def test_settings_put_the_passwords_of_files_into_their_urls(monkeypatch, password_file):
    monkeypatch.setenv("TRAMONTANE_REDIS_URL", "redis://redis:6379/0")
    monkeypatch.setenv("TRAMONTANE_REDIS_PASSWORD_FILE", str(password_file))
    monkeypatch.setenv("TRAMONTANE_SMTP_URL", "smtps://robot@mail")
    monkeypatch.setenv("TRAMONTANE_SMTP_PASSWORD_FILE", str(password_file))
    settings = read_settings(AccountSettings)
    assert settings.redis() == "redis://:p%40ss%2Fw%3Ard@redis:6379/0"
    assert settings.smtp_url == SecretStr("smtps://robot:p%40ss%2Fw%3Ard@mail")
    assert "p%40ss" not in repr(settings)


def test_settings_take_a_url_that_is_handed_in(password_file):
    url = SecretStr("postgresql://tramontane@postgres/books")
    settings = PlatformSettings(database_url=url, database_password_file=password_file)
    assert settings.database() == "postgresql://tramontane:p%40ss%2Fw%3Ard@postgres/books"


def test_a_url_keeps_its_own_password_where_no_file_is_named(monkeypatch):
    monkeypatch.setenv("TRAMONTANE_REDIS_URL", "redis://:own@redis:6379/0")
    assert read_settings(PlatformSettings).redis() == "redis://:own@redis:6379/0"


def test_a_password_without_its_url_or_without_its_file_is_one_sentence(monkeypatch, tmp_path, password_file):
    monkeypatch.setenv("TRAMONTANE_REDIS_PASSWORD_FILE", str(password_file))
    with pytest.raises(SetupError, match="TRAMONTANE_REDIS_PASSWORD_FILE is set, but TRAMONTANE_REDIS_URL is not"):
        read_settings(PlatformSettings)
    monkeypatch.setenv("TRAMONTANE_REDIS_URL", "redis://redis:6379/0")
    monkeypatch.setenv("TRAMONTANE_REDIS_PASSWORD_FILE", str(tmp_path / "missing"))
    with pytest.raises(SetupError, match="missing cannot be read"):
        read_settings(PlatformSettings)
