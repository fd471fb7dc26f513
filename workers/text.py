r"""From token ids to text as they come: characters never split, stop strings never shown.

What a tokenizer decodes from all ids at once is what the increments add up to. A byte piece <0xE2> stands for one byte
of a character; while a choice is under way it is kept as the code point U+DC00 + byte, which no text contains.
"""

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sentencepiece import SentencePieceProcessor

from core.errors import SetupError
from core.tokenizer_files import tokenizer_file

_BYTE_0 = 0xDC00
_NOTHING = "\udfff"  # a control piece: no text, but it parts the bytes around it
_RUN = re.compile("[\udc00-\udcff]+")
_BAD_BYTE = "\N{REPLACEMENT CHARACTER}"
_SPACE = "\u2581"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`surfaces[id]` is the text of a piece; `strips` are pieces whose first space is dropped at the very beginning."""

    surfaces: tuple[str, ...]
    strips: frozenset[int]

    @classmethod
    def load(cls, name: str) -> "Vocabulary":
        """Of a tier's tokenizer: v1, v3, v7 or a sentencepiece file."""
        path = tokenizer_file(name)
        try:
            model = SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise SetupError(f"{path} is not a sentencepiece model.") from error
        ids = range(model.vocab_size())
        surfaces = tuple(_surface(model, i) for i in ids)
        unknown = model.unk_id()
        return cls(surfaces, frozenset(i for i in ids if i != unknown and surfaces[i].startswith(" ")))


def _surface(model: SentencePieceProcessor, token_id: int) -> str:
    if model.is_byte(token_id):
        return chr(_BYTE_0 + int(model.id_to_piece(token_id)[1:-1], 16))
    if model.is_control(token_id):
        return _NOTHING
    if model.is_unknown(token_id):
        return " \u2047 "
    return str(model.id_to_piece(token_id)).replace(_SPACE, " ")


class ChoiceText:
    """The text of one choice. A stop string counts only in what follows the first `min_tokens` tokens, and the one
    that is complete first wins, whatever the size of the steps.
    """

    def __init__(self, vocabulary: Vocabulary, stop: Sequence[str] = (), min_tokens: int = 0) -> None:
        self._vocabulary = vocabulary
        self._stop = tuple(filter(None, stop))
        self._stop_length = max(map(len, self._stop), default=0)
        self._unsearched = min_tokens
        self._begun = False
        self._bytes = ""
        self._held = ""
        self.stopped = False

    def push(self, token_ids: Sequence[int]) -> tuple[str, int]:
        """The text that can be shown now, and how many of the ids belong to the answer: all, or up to the one that
        completed a stop string. Nothing may be pushed after that.
        """
        if not self._stop:
            return self._decode(token_ids), len(token_ids)
        shown = []
        for count, token_id in enumerate(token_ids, start=1):
            text = self._decode((token_id,))
            if self._unsearched > 0:
                self._unsearched -= 1
                shown.append(text)
                continue
            shown.append(self._search(text))
            if self.stopped:
                return "".join(shown), count
        return "".join(shown), len(token_ids)

    def flush(self) -> str:
        """The answer is over: what was held back. A stop string may still end in a broken character."""
        if self.stopped:
            return ""
        rest = _BAD_BYTE * len(self._bytes)
        self._bytes = ""
        shown = self._search(rest) if self._stop and self._unsearched <= 0 else rest
        held, self._held = self._held, ""
        return shown if self.stopped else shown + held

    def _decode(self, token_ids: Sequence[int]) -> str:
        surfaces = self._vocabulary.surfaces
        text = "".join([surfaces[i] for i in token_ids])
        if not self._begun:
            first = next((i for i in token_ids if surfaces[i] != _NOTHING), None)
            if first is not None:
                self._begun = True
                if first in self._vocabulary.strips:
                    text = text.replace(" ", "", 1)
        if not self._bytes and text.isascii():
            return text
        text = self._bytes + text
        end = _unfinished(text)
        text, self._bytes = text[:end], text[end:]
        return _RUN.sub(_characters, text).replace(_NOTHING, "")

    def _search(self, text: str) -> str:
        text = self._held + text
        ends = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            self._held = ""
            return text[: min(ends)[1]]
        for length in range(min(self._stop_length - 1, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stop):
                self._held = tail
                return text[:-length]
        self._held = ""
        return text


def _unfinished(text: str) -> int:
    """Where the bytes of a character begin that later tokens may complete; the length of the text if there is none."""
    for length in (1, 2, 3):
        tail = text[-length:]
        if len(tail) < length or not _RUN.fullmatch(tail):
            break
        try:
            _, used = codecs.utf_8_decode(_bytes(tail), "strict", False)
        except UnicodeDecodeError:
            continue
        if not used:
            return len(text) - length
    return len(text)


def _bytes(run: str) -> bytes:
    return bytes(ord(char) - _BYTE_0 for char in run)


def _characters(match: re.Match[str]) -> str:
    """A run of bytes as sentencepiece decodes it: one replacement character for each byte that fits nowhere."""
    data = _bytes(match[0])
    out = []
    while data:
        try:
            out.append(data.decode())
            break
        except UnicodeDecodeError as error:
            out.append(data[: error.start].decode() + _BAD_BYTE)
            data = data[error.start + 1 :]
    return "".join(out)
