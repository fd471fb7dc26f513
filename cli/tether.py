"""Become another program that ends when its parent does, however the parent ends.

    python -I -S tether.py PARENT_PID PROGRAM [ARGUMENT ...]

The kernel sends SIGTERM when the parent dies; the wish survives exec. Started by path, so it imports nothing of ours.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    parent, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:  # else it died before the wish was made
        os.execvp(program[0], program)  # noqa: S606 - the very purpose
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
