"""What vLLM's own processes do beside computing: stay with the worker that started them.

vLLM calls `stay_with_parent` in each of its processes, as the plugin that pyproject.toml names.
"""

import multiprocessing
import os
import threading
from multiprocessing.process import BaseProcess

ORPHANED = 71


def stay_with_parent() -> None:
    """In a child: end as soon as the parent is gone, however it went, for it would keep the device's memory."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), name="parent", daemon=True).start()


def _follow(parent: BaseProcess) -> None:
    parent.join()
    os._exit(ORPHANED)
