"""Settings of the collector and of Celery."""

from pydantic import Field, SecretStr

from core.settings import PlatformSettings


class CollectorSettings(PlatformSettings):
    collector_name: str = Field(
        default="collector",
        pattern="^[a-zA-Z0-9._-]{1,64}$",
        description="One name for each collector of a cell; after a restart it gets again what it had not stored.",
    )
    collector_batch: int = Field(default=2_000, ge=1, le=5_000, description="Usage events in one transaction, at most.")


class CelerySettings(PlatformSettings):
    celery_broker_url: SecretStr | None = Field(
        default=None, description="Broker of Celery, a single Redis; default: the platform's, under keys of its own."
    )
    celery_name: str = Field(
        default="celery", pattern="^[a-zA-Z0-9._-]{1,64}$", description="One name for each process of Celery."
    )

    def broker(self) -> str:
        return self.redis() if self.celery_broker_url is None else self.celery_broker_url.get_secret_value()
