r"""From token ids to text as they come: characters never split, stop strings never shown.

What a tokenizer decodes from all ids at once is what the increments add up to. A byte piece <0xE2> stands for one byte
of a character; while a choice is under way it is kept as the code point U+DC00 + byte, which no text contains. Python's
own surrogateescape does the same with the pieces of a Tekken vocabulary, which may begin and end within a character.
"""

import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mistral_common.exceptions import MistralCommonException
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from sentencepiece import SentencePieceProcessor

from core.errors import SetupError
from core.tokenizer_files import tokenizer_file

_BYTE_0 = 0xDC00
_NOTHING = "\udfff"  # a control piece: no text, but it parts the bytes around it
_RUN = re.compile("[\udc00-\udcff]+")
_BAD_BYTE = "\N{REPLACEMENT CHARACTER}"
_SPACE = "\u2581"
_ALONE = "\ue000"  # of no piece, so that nothing merges with it; behind it a text gets no first space
TOOL_MARKER = "[TOOL_CALLS]"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`surfaces[id]` is the text of a piece; `strips` are pieces whose first space is dropped at the very beginning.

    `controls` are the names of the pieces without text; `encode` gives the ids of a text in the middle of an answer.
    `joins_bad_bytes`: bytes that form no character are shown as Python does it, else each by itself.
    """

    surfaces: tuple[str, ...]
    strips: frozenset[int]
    controls: Mapping[int, str]
    encode: Callable[[str], list[int]]
    joins_bad_bytes: bool = False

    @classmethod
    def load(cls, name: str) -> "Vocabulary":
        """Of a tier's tokenizer: a name of core.tokenizer_files, a sentencepiece file, or a Tekken file (.json)."""
        path = tokenizer_file(name)
        return _tekken(path) if path.suffix == ".json" else _sentencepiece(path)

    def with_tool_marker(self) -> "Vocabulary":
        """The same, where the control piece that begins tool calls is written out."""
        marks = [token_id for token_id, piece in self.controls.items() if piece == TOOL_MARKER]
        surfaces = list(self.surfaces)
        for token_id in marks:
            surfaces[token_id] = TOOL_MARKER
        return replace(self, surfaces=tuple(surfaces)) if marks else self

    def token_bytes(self, token_id: int) -> bytes:
        """What the piece stands for; of a control piece its name."""
        surface = self.controls.get(token_id, self.surfaces[token_id])
        try:
            return surface.encode()
        except UnicodeEncodeError:
            return b"".join([_bytes(char) if _RUN.match(char) else char.encode() for char in surface])


def _sentencepiece(path: Path) -> Vocabulary:
    try:
        model = SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise SetupError(f"{path} is not a sentencepiece model.") from error
    ids = range(model.vocab_size())
    surfaces = tuple(_surface(model, i) for i in ids)
    unknown = model.unk_id()
    return Vocabulary(
        surfaces,
        strips=frozenset(i for i in ids if i != unknown and surfaces[i].startswith(" ")),
        controls={i: str(model.id_to_piece(i)) for i in ids if i == unknown or model.is_control(i)},
        encode=_Encoder(model),
    )


class _Encoder:
    """A text in the middle of an answer: without a first space, and the sign for a space by its bytes."""

    def __init__(self, model: SentencePieceProcessor) -> None:
        self._model = model
        self._before = len(model.encode(_ALONE))
        self._sign = [int(model.piece_to_id(f"<0x{byte:02X}>")) for byte in _SPACE.encode()]

    def __call__(self, text: str) -> list[int]:
        ids: list[int] = []
        for number, part in enumerate(text.split(_SPACE)):
            ids += self._sign if number else []
            ids += self._model.encode(_ALONE + part)[self._before :]
        return ids


def _tekken(path: Path) -> Vocabulary:
    try:
        model = Tekkenizer.from_file(path)
    except (OSError, ValueError, KeyError, TypeError, MistralCommonException) as error:
        raise SetupError(f"{path} is not a Tekken vocabulary.") from error
    controls = {i: model.id_to_piece(i) for i in range(model.num_special_tokens)}
    pieces = [model.id_to_byte_piece(i) for i in range(model.num_special_tokens, model.n_words)]
    return Vocabulary(
        (_NOTHING,) * len(controls) + tuple([piece.decode(errors="surrogateescape") for piece in pieces]),
        strips=frozenset(),
        controls=controls,
        encode=lambda text: model.encode(text, bos=False, eos=False),
        joins_bad_bytes=True,
    )


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
    that is complete first wins, whatever the size of the steps. `continues`: another text stands before it.
    """

    def __init__(
        self, vocabulary: Vocabulary, stop: Sequence[str] = (), min_tokens: int = 0, *, continues: bool = False
    ) -> None:
        self._vocabulary = vocabulary
        self._stop = tuple(filter(None, stop))
        self._stop_length = max(map(len, self._stop), default=0)
        self._unsearched = min_tokens
        self._begun = continues
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
        rest = self._characters(self._bytes)
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
        return _RUN.sub(lambda run: self._characters(run[0]), text).replace(_NOTHING, "")

    def _characters(self, run: str) -> str:
        data = _bytes(run)
        return data.decode(errors="replace") if self._vocabulary.joins_bad_bytes else _characters(data)

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


def _characters(data: bytes) -> str:
    """As sentencepiece decodes them: one replacement character for each byte that fits nowhere."""
    out = []
    while data:
        try:
            out.append(data.decode())
            break
        except UnicodeDecodeError as error:
            out.append(data[: error.start].decode() + _BAD_BYTE)
            data = data[error.start + 1 :]
    return "".join(out)
