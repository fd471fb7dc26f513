"""A platform with the real engines, started once for all tests that only use it."""

import pytest

from tests.e2e.installation import Installation


@pytest.fixture(scope="session")
def platform(tmp_path_factory):
    made = Installation(tmp_path_factory.mktemp("platform"), real_engines=True)
    made.ok("up", "--detach", "--port", "0")
    yield made
    made.ok("down")
