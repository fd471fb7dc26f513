"""Fixtures that several suites share; a server starts when the first test asks for it."""

import os

from tests.redis_servers import bundled_socket, cluster_socket, newer_socket

__all__ = ["bundled_socket", "cluster_socket", "newer_socket"]

# Stock clients look for tokenizers on a hub when they are imported; tests stay on loopback.
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="promises at their full size: make promises-money")
