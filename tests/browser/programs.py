"""Programs of this machine that the tests drive."""

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found is not None, "no Chromium on the PATH: deploy/install-test-chromium puts one there"
    return found
