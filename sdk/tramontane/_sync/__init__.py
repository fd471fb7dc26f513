"""The shell without async: written by `make_sync.py`, not by hand."""
