"""Fixtures that several suites share; a server starts when the first test asks for it."""

from tests.redis_servers import bundled_socket, cluster_socket, newer_socket

__all__ = ["bundled_socket", "cluster_socket", "newer_socket"]
