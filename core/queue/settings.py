"""From the catalog to what the queue needs to know of it."""

from core.catalog import Catalog
from core.queue.base import QueueSettings, TierBounds


def queue_settings(catalog: Catalog, cell: str, lease_ms: int) -> QueueSettings:
    bounds = {tier.name: TierBounds(tier.queue_jobs_max, tier.pool_reserve) for tier in catalog.tiers}
    return QueueSettings(cell=cell, lease_ms=lease_ms, tiers=bounds)
