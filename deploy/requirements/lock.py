"""What an image installs, each package in the version that is installed here: what the tests ran with.

`gateway` prints gateway.txt, `worker` what worker.txt adds to it.
"""

import sys
from collections.abc import Iterable
from importlib.metadata import distribution, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PLATFORM = "tramontane-platform"


def closure(roots: Iterable[str]) -> dict[str, str]:
    """Name to version of everything that these need, without a build's local part such as +cpu."""
    found: dict[str, str] = {}
    todo = [Requirement(root) for root in roots]
    seen = set()
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        extras = tuple(sorted(one.extras)) or ("",)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name != PLATFORM:
            found[name] = distribution(name).version.partition("+")[0]
        for text in requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return found


def lock(image: str) -> dict[str, str]:
    gateway = closure([PLATFORM])
    if image == "gateway":
        return gateway
    worker = closure([f"{PLATFORM}[models]"])
    return {name: version for name, version in worker.items() if name not in gateway}


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in sorted(lock(sys.argv[1]).items()))
