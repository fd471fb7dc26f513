"""The queue in plain Python, in one process: for tests and simulations, and to step through the rules of docs/queue.md.

`broker` holds the rules, `views` and `funds` the sides of the protocols; the other files are their nouns.
"""

from core.queue.memory.broker import MemoryBroker
from core.queue.memory.funds import MemoryCounterStore, MemoryCreditStore
from core.queue.memory.pools import MemoryPools
from core.queue.memory.views import MemoryQueueKeeper, MemorySubmitterQueue, MemoryUsageSource, MemoryWorkerQueue

__all__ = [
    "MemoryBroker",
    "MemoryCounterStore",
    "MemoryCreditStore",
    "MemoryPools",
    "MemoryQueueKeeper",
    "MemorySubmitterQueue",
    "MemoryUsageSource",
    "MemoryWorkerQueue",
]
