"""The queue in plain Python, in one process: for tests and simulations, and to step through the rules of docs/queue.md.

`broker` holds the rules, `views` the sides of the protocols; `fair`, `tier`, `limits`, `record`, `replies` their nouns.
"""

from core.queue.memory.broker import MemoryBroker
from core.queue.memory.views import MemoryQueueKeeper, MemorySubmitterQueue, MemoryUsageSource, MemoryWorkerQueue

__all__ = ["MemoryBroker", "MemoryQueueKeeper", "MemorySubmitterQueue", "MemoryUsageSource", "MemoryWorkerQueue"]
