"""Chat: whole answers, streams, answers of a form, conversations with tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence, Type, TypeVar, Union

from tramontane._async.streams import AsyncChatStream
from tramontane._async.transport import AsyncTransport
from tramontane._calling import call_tool_async
from tramontane.types import ChatCompletion
from tramontane.wire.chat import Message, chat_call, messages_of
from tramontane.wire.parsing import Parsed, format_of, parsed_of
from tramontane.wire.tools import ROUNDS_MAX, Tool, ToolLoop, ToolRun

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tramontane.wire.chat import ChatOptions, PlainChatOptions

Form = TypeVar("Form")


class AsyncChat:
    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def complete(
        self, *, model: str, messages: Sequence[Message], **options: Unpack[ChatOptions]
    ) -> ChatCompletion:
        """The whole answer. Messages are dicts, or answers as they came. Raises TramontaneError."""
        return await self._transport.run(chat_call(model, messages, options))

    def stream(self, *, model: str, messages: Sequence[Message], **options: Unpack[ChatOptions]) -> AsyncChatStream:
        """The answer as it is made; see there."""
        return AsyncChatStream(self._transport, chat_call(model, messages, options, stream=True))

    async def parse(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        response_format: Type[Form],
        **options: Unpack[PlainChatOptions],
    ) -> Parsed[Form]:
        """An instance of `response_format`, a pydantic model. Say in the messages too what is wanted. Raises
        TramontaneError; NotParsed for an answer that was cut off, or that the model's own validators refuse.
        """
        asked = {**options, "response_format": format_of(response_format)}
        return parsed_of(response_format, await self._transport.run(chat_call(model, messages, asked)))

    async def run(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        tools: Sequence[Union[Tool, Callable[..., Any]]],
        tool_choice: Union[str, Mapping[str, Any], None] = None,
        later_choice: Union[str, Mapping[str, Any], None] = None,
        rounds_max: int = ROUNDS_MAX,
        **options: Unpack[PlainChatOptions],
    ) -> ToolRun:
        """Asks, runs the functions that the model calls, and asks again until an answer calls none. `tool_choice` is of
        the first round; later ones ask with `later_choice` (by default the same, but what is forced is forced once).
        A tool may raise ToolError to tell the model; other exceptions end it. Raises TramontaneError: TooManyRounds.
        """
        loop = ToolLoop(
            messages_of(messages), tools, tool_choice=tool_choice, later_choice=later_choice, rounds_max=rounds_max
        )
        while True:
            asked = {**options, **loop.begin()}
            completion = await self._transport.run(chat_call(model, loop.messages, asked))
            invocations = loop.take(completion)
            if not invocations:
                return loop.ended(completion)
            for invocation in invocations:
                loop.answer(invocation, await call_tool_async(invocation))
