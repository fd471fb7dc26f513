"""Write tramontane/_sync from tramontane/_async: `python make_sync.py`. A test compares them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Dict, Match

PACKAGE = Path(__file__).parent / "tramontane"
WORDS = {
    "_async": "_sync",
    "AsyncIterator": "Iterator",
    "StopAsyncIteration": "StopIteration",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
    "call_tool_async": "call_tool",
}
MARKS = re.compile(r"\b(?:%s)\b|\b(?:async (?=def|for|with)|await |Async(?=[A-Z]))" % "|".join(WORDS))  # noqa: UP031
HEAD = '"""The shell without async: written by `make_sync.py`, not by hand."""\n'


def written() -> Dict[Path, str]:
    """Each file of `_sync` with its text."""
    made = {PACKAGE / "_sync" / "__init__.py": HEAD}
    for source in sorted((PACKAGE / "_async").glob("*.py")):
        if source.name == "__init__.py":
            continue
        text = source.read_text(encoding="utf-8")
        made[PACKAGE / "_sync" / source.name] = MARKS.sub(_without, text)
    return made


def _without(found: Match[str]) -> str:
    return WORDS.get(found.group(), "")


def main() -> int:
    for path, text in written().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(PACKAGE.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
