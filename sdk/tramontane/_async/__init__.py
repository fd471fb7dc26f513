"""The shell with async and await. `make_sync.py` writes `_sync` from it."""
