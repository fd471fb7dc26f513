"""First programs for each client, as Getting started shows them and a test runs them."""

from dataclasses import dataclass

KEY_VARIABLE = "MISTRAL_API_KEY"

_CURL_CHAT = """
curl BASE_URL/v1/chat/completions \\
  -H "Authorization: Bearer $MISTRAL_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "TIER",
    "messages": [{"role": "user", "content": "Tell me about the wind."}],
    "max_tokens": 100
  }'
"""
_CURL_STREAM = """
curl --no-buffer BASE_URL/v1/chat/completions \\
  -H "Authorization: Bearer $MISTRAL_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "TIER",
    "messages": [{"role": "user", "content": "Tell me about the wind."}],
    "max_tokens": 100,
    "stream": true
  }'
"""
_CURL_EMBED = """
curl BASE_URL/v1/embeddings \\
  -H "Authorization: Bearer $MISTRAL_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "EMBEDDER", "input": ["a kitten sleeps", "an invoice is due"]}'
"""
_MISTRAL_CHAT = """
import os

from mistralai.client import Mistral

with Mistral(api_key=os.environ["MISTRAL_API_KEY"], server_url="BASE_URL") as client:
    answer = client.chat.complete(
        model="TIER",
        messages=[{"role": "user", "content": "Tell me about the wind."}],
        max_tokens=100,
    )
    print(answer.choices[0].message.content)
"""
_MISTRAL_STREAM = """
import os

from mistralai.client import Mistral

with Mistral(api_key=os.environ["MISTRAL_API_KEY"], server_url="BASE_URL") as client:
    stream = client.chat.stream(
        model="TIER",
        messages=[{"role": "user", "content": "Tell me about the wind."}],
        max_tokens=100,
    )
    for event in stream:
        print(event.data.choices[0].delta.content or "", end="", flush=True)
"""
_MISTRAL_EMBED = """
import os

from mistralai.client import Mistral

with Mistral(api_key=os.environ["MISTRAL_API_KEY"], server_url="BASE_URL") as client:
    found = client.embeddings.create(
        model="EMBEDDER",
        inputs=["a kitten sleeps", "an invoice is due"],
    )
    print(len(found.data), "vectors of", len(found.data[0].embedding), "numbers")
"""
_OPENAI_CHAT = """
import os

from openai import OpenAI

client = OpenAI(api_key=os.environ["MISTRAL_API_KEY"], base_url="BASE_URL/v1")
answer = client.chat.completions.create(
    model="TIER",
    messages=[{"role": "user", "content": "Tell me about the wind."}],
    max_tokens=100,
)
print(answer.choices[0].message.content)
"""
_OPENAI_STREAM = """
import os

from openai import OpenAI

client = OpenAI(api_key=os.environ["MISTRAL_API_KEY"], base_url="BASE_URL/v1")
stream = client.chat.completions.create(
    model="TIER",
    messages=[{"role": "user", "content": "Tell me about the wind."}],
    max_tokens=100,
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
"""
_OPENAI_EMBED = """
import os

from openai import OpenAI

client = OpenAI(api_key=os.environ["MISTRAL_API_KEY"], base_url="BASE_URL/v1")
found = client.embeddings.create(
    model="EMBEDDER",
    input=["a kitten sleeps", "an invoice is due"],
    encoding_format="float",
)
print(len(found.data), "vectors of", len(found.data[0].embedding), "numbers")
"""
_LANGCHAIN_CHAT = """
import os

from langchain_mistralai import ChatMistralAI

chat = ChatMistralAI(
    model="TIER",
    api_key=os.environ["MISTRAL_API_KEY"],
    base_url="BASE_URL/v1",
    max_tokens=100,
)
print(chat.invoke("Tell me about the wind.").content)
"""
_LANGCHAIN_STREAM = """
import os

from langchain_mistralai import ChatMistralAI

chat = ChatMistralAI(
    model="TIER",
    api_key=os.environ["MISTRAL_API_KEY"],
    base_url="BASE_URL/v1",
    max_tokens=100,
)
for chunk in chat.stream("Tell me about the wind."):
    print(chunk.content, end="", flush=True)
"""
_LANGCHAIN_EMBED = """
import os

from langchain_mistralai import MistralAIEmbeddings

embedder = MistralAIEmbeddings(
    model="EMBEDDER",
    api_key=os.environ["MISTRAL_API_KEY"],
    endpoint="BASE_URL/v1/",
)
vectors = embedder.embed_documents(["a kitten sleeps", "an invoice is due"])
print(len(vectors), "vectors of", len(vectors[0]), "numbers")
"""
_OURS_CHAT = """
import os

from tramontane import Tramontane

with Tramontane(api_key=os.environ["MISTRAL_API_KEY"], base_url="BASE_URL") as client:
    answer = client.chat.complete(
        model="TIER",
        messages=[{"role": "user", "content": "Tell me about the wind."}],
        max_tokens=100,
    )
    print(answer.choices[0].message.content)
    print(answer.usage.total_tokens, "tokens,", answer.meta.cost_nano, "nano-units")
"""
_OURS_STREAM = """
import os

from tramontane import Tramontane

talk = [{"role": "user", "content": "Tell me about the wind."}]
with Tramontane(api_key=os.environ["MISTRAL_API_KEY"], base_url="BASE_URL") as client:
    with client.chat.stream(model="TIER", messages=talk, max_tokens=100) as stream:
        for text in stream.texts():
            print(text, end="", flush=True)
"""
_OURS_EMBED = """
import os

from tramontane import Tramontane

with Tramontane(api_key=os.environ["MISTRAL_API_KEY"], base_url="BASE_URL") as client:
    found = client.embeddings.create(
        model="EMBEDDER",
        input=["a kitten sleeps", "an invoice is due"],
    )
    print(len(found.data), "vectors of", len(found.data[0].embedding), "numbers")
"""


@dataclass(frozen=True, slots=True)
class Example:
    """`id` is chat, stream or embed."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Client:
    """`language` as highlighters call it; `install` may be empty."""

    id: str
    title: str
    language: str
    install: str
    note: str
    examples: tuple[Example, ...]


_CLIENTS = (
    ("curl", "curl", "bash", "", "", (_CURL_CHAT, _CURL_STREAM, _CURL_EMBED)),
    (
        "mistralai",
        "mistralai",
        "python",
        "pip install mistralai",
        "Mistral's own Python client, unchanged: only server_url and the key are yours.",
        (_MISTRAL_CHAT, _MISTRAL_STREAM, _MISTRAL_EMBED),
    ),
    (
        "openai",
        "openai",
        "python",
        "pip install openai",
        "For options that only OpenAI knows, make the workspace lenient: it then accepts and ignores them.",
        (_OPENAI_CHAT, _OPENAI_STREAM, _OPENAI_EMBED),
    ),
    (
        "langchain",
        "LangChain",
        "python",
        "pip install langchain-mistralai",
        "",
        (_LANGCHAIN_CHAT, _LANGCHAIN_STREAM, _LANGCHAIN_EMBED),
    ),
    (
        "tramontane",
        "tramontane",
        "python",
        "pip install ./sdk",
        "Our Python client, in the folder sdk of this platform: it knows limits, usage, costs and the admin API, too.",
        (_OURS_CHAT, _OURS_STREAM, _OURS_EMBED),
    ),
)
_TITLES = (("chat", "Ask a question"), ("stream", "Read the answer as it comes"), ("embed", "Turn texts into vectors"))


def clients_for(base_url: str, tier: str, embedder: str) -> tuple[Client, ...]:
    """With these filled in. `tier` or `embedder` empty: without the examples that need one."""

    def filled(text: str) -> str:
        return text.strip().replace("BASE_URL", base_url).replace("TIER", tier).replace("EMBEDDER", embedder)

    wanted = {"chat": tier, "stream": tier, "embed": embedder}
    return tuple(
        Client(
            name,
            title,
            language,
            install,
            note,
            tuple(
                Example(which, heading, filled(text))
                for (which, heading), text in zip(_TITLES, texts, strict=True)
                if wanted[which]
            ),
        )
        for name, title, language, install, note, texts in _CLIENTS
    )
