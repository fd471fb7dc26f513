"""Settings of the collector process."""

from pydantic import Field

from core.settings import PlatformSettings


class CollectorSettings(PlatformSettings):
    collector_name: str = Field(
        default="collector",
        pattern="^[a-zA-Z0-9._-]{1,64}$",
        description="One name for each collector of a cell; after a restart it gets again what it had not stored.",
    )
    collector_batch: int = Field(default=2_000, ge=1, le=5_000, description="Usage events in one transaction, at most.")
