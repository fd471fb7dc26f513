"""What somebody runs who never upgraded: MistralClient 0.4.2, in an environment of its own. Prints what it was told."""

import json
import sys

from mistralai.client import MistralClient
from mistralai.exceptions import MistralAPIException

base_url, key = sys.argv[1:]
client = MistralClient(api_key=key, endpoint=base_url)
messages = [{"role": "user", "content": "Tell me about the wind."}]
told = {"prompt_tokens": 0, "completion_tokens": 0}


def count(usage):
    told["prompt_tokens"] += usage.prompt_tokens
    told["completion_tokens"] += usage.completion_tokens or 0


answer = client.chat(model="mistral-tiny", messages=messages, max_tokens=9)
assert answer.choices[0].message.role == "assistant"
count(answer.usage)

chunks = list(client.chat_stream(model="mistral-small", messages=messages, max_tokens=9))
assert len(chunks) > 1
assert chunks[-1].choices[0].finish_reason is not None
count(chunks[-1].usage)

embedded = client.embeddings(model="mistral-embed", input=["a cat", "a kitten"])
assert len(embedded.data) == 2
assert len(embedded.data[0].embedding) == 384
count(embedded.usage)

names = {card.id for card in client.list_models().data}
assert "mistral-tiny" in names

try:
    client.chat(model="no-such-model", messages=messages)
except MistralAPIException as error:
    assert error.http_status == 400, error  # noqa: PT017 - this is not a pytest file
    assert "Invalid model: no-such-model" in str(error)  # noqa: PT017
else:
    raise AssertionError("an unknown model was accepted")

json.dump(told, sys.stdout)
