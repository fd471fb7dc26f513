"""The floor: FastAPI with a pydantic body and nothing else. No keys, no limits, no queue, no metering."""

import argparse
import time

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Message(BaseModel):
    role: str
    content: str


class ChatBody(BaseModel):
    model: str
    messages: list[Message]
    max_tokens: int


app = FastAPI()


@app.post("/v1/chat/completions")
async def chat(body: ChatBody) -> dict[str, object]:
    message = {"role": "assistant", "content": body.messages[-1].content}
    return {
        "id": "bare",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 16, "total_tokens": 28},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning", access_log=False)
