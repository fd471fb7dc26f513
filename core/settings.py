"""Settings that every process shares, read from the environment at the edge and passed down."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import SetupError
from core.secrets import read_secret, with_password

DEVELOPMENT_CELL = "c0"
PASSWORD_FILE = "_password_file"  # noqa: S105 - the end of a variable's name


class PlatformSettings(BaseSettings):
    """Fields are environment variables with the prefix TRAMONTANE_. The password of NAME_url may lie in the file of
    NAME_password_file: whoever reads NAME_url finds it there.
    """

    model_config = SettingsConfigDict(env_prefix="TRAMONTANE_", frozen=True, extra="ignore")

    home: Path = Field(default=Path(".tramontane"), description="Where keys, SQLite, Redis and logs live.")
    config: Path | None = Field(
        default=None,
        description="tramontane.toml; default: the one in the working folder, else the one beside the program.",
    )
    engine: Literal["echo", "transformers", "vllm"] | None = Field(
        default=None,
        description="Serve every chat tier with this engine instead of its own; `up --engine` sets it.",
    )
    tiers: str = Field(default="", description="Serve only these, comma-separated; `up --tiers` sets it; empty: all.")
    database_url: SecretStr | None = Field(
        default=None,
        description="SQLAlchemy URL; default: SQLite in home. Postgres: postgresql+psycopg://...",
    )
    database_password_file: Path | None = Field(
        default=None, description="Holds the password of database_url, which then has none."
    )
    redis_url: SecretStr | None = Field(default=None, description="Redis URL; `up` starts a private one if unset.")
    redis_password_file: Path | None = Field(
        default=None, description="Holds the password of redis_url, which then has none."
    )
    cell: str = Field(default=DEVELOPMENT_CELL, pattern="^[0-9a-f]{2}$", description="The cell served, two hex digits.")
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    redis_timeout_s: float = Field(default=2.0, gt=0, description="Deadline of one Redis call.")
    heartbeat_file: Path | None = Field(default=None, description="Touched every second while the process can work.")
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65_535,
        description="Of every process but a gateway: serve its metrics here; absent: nowhere.",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of metrics_port.")
    lease_ms: int = Field(default=6_000, ge=1_000, description="How long a silent worker keeps what it has taken.")

    @model_validator(mode="before")
    @classmethod
    def _passwords_from_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Raises SetupError for a file that cannot be read."""
        out = dict(values)
        for field in cls.model_fields:
            if field.endswith(PASSWORD_FILE) and values.get(field):
                name = f"{field.removesuffix(PASSWORD_FILE)}_url"
                url = values.get(name)
                if not url:
                    raise SetupError(f"TRAMONTANE_{field.upper()} is set, but TRAMONTANE_{name.upper()} is not.")
                plain = url if isinstance(url, SecretStr) else SecretStr(url)
                out[name] = with_password(plain, read_secret(Path(values[field])))
        return out

    def database(self) -> str:
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.home.absolute() / 'tramontane.sqlite3'}"

    def redis(self) -> str:
        if self.redis_url is None:
            raise SetupError("TRAMONTANE_REDIS_URL is not set: start the platform with `tramontane up`, or set it.")
        return self.redis_url.get_secret_value()


Settings = TypeVar("Settings", bound=PlatformSettings)


def read_settings(cls: type[Settings], **overrides: object) -> Settings:
    """Build settings, or raise SetupError with one sentence that names the variable."""
    try:
        return cls(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = "TRAMONTANE_" + "_".join(str(part) for part in first["loc"]).upper()
        raise SetupError(f"{name}: {first['msg']}.") from error


def environment() -> Mapping[str, str]:
    """The process environment, for handing on to child processes."""
    return dict(os.environ)


def limit_threads(count: int) -> None:
    """Threads of numerical libraries, for those that load later; what the environment already says stays. Threads
    that spin while they wait would starve the other processes of a small machine.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(count))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def default_environment(values: Mapping[str, str]) -> None:
    """For libraries that are told by the environment alone; what it already says stays."""
    for name, value in values.items():
        os.environ.setdefault(name, value)
