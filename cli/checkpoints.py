"""Missing or outdated demo checkpoints are put in place by a child: it may need torch, never imported here."""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence

from cli.home import Home
from cli.process import ending, tethered
from core.errors import SetupError

MODULE = "demo.placing"
LINES_KEPT = 12


async def place_checkpoints(
    home: Home, names: Sequence[str], env: Mapping[str, str], note: Callable[[str], None], module: str = MODULE
) -> bool:
    """Run until they are there; whether any was not. `note` gets each line of what is done.

    Raises SetupError with the child's last lines.
    """
    process = await asyncio.create_subprocess_exec(
        *tethered((sys.executable, "-P", "-m", module, str(home.root), *names)),
        env=dict(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    last: list[str] = []
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            text = line.decode("utf-8", errors="replace").rstrip()
            last = [*last, text][-LINES_KEPT:]
            note(text)
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code != 0:
        raise SetupError("\n".join([f"The demo checkpoints could not be put in place ({ending(code)}).", *last]))
    return bool(last)
