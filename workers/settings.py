"""What a worker process reads from the environment, beside what all processes share."""

from pydantic import Field

from core.queue.loop import LoopSettings
from core.settings import PlatformSettings


class WorkerSettings(PlatformSettings):
    drain_s: float = Field(default=120.0, ge=0, description="After SIGTERM: how long running requests may go on.")
    engine_stall_s: float = Field(default=30.0, gt=0, description="A busy engine without a step for so long hangs.")
    outbox_tokens_max: int = Field(default=200_000, gt=0, description="Tokens kept while Redis is away.")
    experts_one_in: int = Field(
        default=16, ge=0, description="Of so many requests to a mixture of experts one is counted; 0: none."
    )

    def loop(self) -> LoopSettings:
        return LoopSettings(
            late_s=self.lease_ms / 2000,
            engine_stall_s=self.engine_stall_s,
            drain_s=self.drain_s,
            outbox_tokens_max=self.outbox_tokens_max,
        )
