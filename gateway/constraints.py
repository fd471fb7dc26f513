"""From tools and answer formats to the one grammar of a request, or to the refusal that says why there is none."""

from typing import Any

from core.catalog import Tier
from core.errors import INVALID_ARGUMENTS, PlatformError
from core.grammars import (
    ANY_OBJECT,
    CallableTool,
    GrammarCheck,
    GrammarError,
    calls_grammar,
    calls_or_json_grammar,
    calls_or_text_grammar,
    json_object_grammar,
    json_schema_grammar,
)
from core.tools import ToolForm
from gateway.requests import ChatRequest, Choice, JsonAnswer, ToolUse

# Engines that cannot be told which tokens are allowed.
FREE_ENGINES = frozenset({"echo"})


def constraint(request: ChatRequest, form: ToolForm | None, checker: GrammarCheck) -> str | None:
    """None where the answer may be any text. Raises PlatformError(INVALID_ARGUMENTS) that names the field."""
    use, answer = request.tool_use, request.json_answer
    _refuse_contradictions(use, answer)
    if form is None and use.offered:
        raise _refused("tools", "Function calling is not enabled for this model")
    forced = answer is not None or use.choice is Choice.ANY
    if request.tier.engine in FREE_ENGINES:
        if forced:
            raise _unserved(request.tier, "tool_choice" if answer is None else "response_format")
        return None
    if forced and any(message.get("prefix") for message in request.messages[-1:]):
        field = "tool_choice" if answer is None else "response_format"
        raise _refused(field, f"{field} cannot constrain an answer that continues a prefix")
    if not request.is_constrained:
        return None
    try:
        grammar = _grammar(use, answer, form)
        checker.check(grammar)
    except GrammarError as error:
        field = "tools" if use.offered else "response_format"
        raise _refused(field, f"{field}: no grammar can be made of it: {error}") from error
    return grammar


def _grammar(use: ToolUse, answer: JsonAnswer | None, form: ToolForm | None) -> str:
    if form is not None and use.offered:
        tools = [_callable(tool["function"]) for tool in use.offered if use.only in (None, tool["function"]["name"])]
        if answer is not None:
            schema = ANY_OBJECT if answer.schema is None else answer.schema
            return calls_or_json_grammar(form, tools, schema, strict=answer.strict, parallel=use.parallel)
        make = calls_grammar if use.choice is Choice.ANY else calls_or_text_grammar
        return make(form, tools, parallel=use.parallel)
    if answer is None or answer.schema is None:
        return json_object_grammar()
    return json_schema_grammar(answer.schema, strict=answer.strict)


def _refuse_contradictions(use: ToolUse, answer: JsonAnswer | None) -> None:
    names = [tool["function"]["name"] for tool in use.tools]
    if use.choice is Choice.ANY and not use.tools:
        raise _refused("tool_choice", f"No tools provided for tool choice `{use.only or use.choice}`")
    if use.only is not None and use.only not in names:
        raise _refused("tool_choice", f"Tool choice `{use.only}` not found in available tools: {names}.")
    if answer is not None and use.choice is Choice.ANY:
        message = f"`{answer.word}` response type with tools is only compatible with `tool_choice: auto`"
        raise _refused("response_format", message)


def _callable(function: Any) -> CallableTool:
    return CallableTool(function["name"], function["parameters"], function.get("strict", False))


def _unserved(tier: Tier, field: str) -> PlatformError:
    return _refused(field, f"{field} is not enabled for this model: its engine {tier.engine} cannot be constrained")


def _refused(field: str, message: str) -> PlatformError:
    return PlatformError(INVALID_ARGUMENTS, message, param=field)
