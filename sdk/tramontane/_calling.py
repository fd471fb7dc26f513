"""Runs what a model called."""

from __future__ import annotations

import inspect
from typing import Any

from tramontane.wire.tools import Invocation, ToolError


def call_tool(invocation: Invocation) -> Any:
    """What the model is told. Raises what the tool raises, but for ToolError."""
    if invocation.tool is None or invocation.problem:
        return invocation.problem
    try:
        result = invocation.tool.function(**invocation.arguments)
    except ToolError as error:
        return f"error: {error}"
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(f"the tool {invocation.tool.name!r} is async: use AsyncTramontane")
    return result


async def call_tool_async(invocation: Invocation) -> Any:
    """As `call_tool`; the function may be async."""
    if invocation.tool is None or invocation.problem:
        return invocation.problem
    try:
        result = invocation.tool.function(**invocation.arguments)
        return await result if inspect.isawaitable(result) else result
    except ToolError as error:
        return f"error: {error}"
