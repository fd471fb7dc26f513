"""How a server process treats its garbage: what it has built at its start is never looked through again."""

import gc

YOUNG_OBJECTS = 20_000


def settle_memory() -> None:
    """Call once, when everything is built. Each full collection would otherwise walk all libraries, for milliseconds,
    in the middle of a request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)
