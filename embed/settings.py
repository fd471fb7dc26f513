"""What the embedding service reads from the environment, beside what all processes share."""

from pydantic import Field

from core.queue.loop import LoopSettings
from core.settings import PlatformSettings


class EmbedSettings(PlatformSettings):
    drain_s: float = Field(default=30.0, ge=0, description="After SIGTERM: how long running requests may go on.")
    engine_stall_s: float = Field(default=30.0, gt=0, description="A busy encoder without a pass for so long hangs.")

    def loop(self) -> LoopSettings:
        return LoopSettings(late_s=self.lease_ms / 2000, engine_stall_s=self.engine_stall_s, drain_s=self.drain_s)
