"""tokenizer.json for a sentencepiece model, such that the ids agree with sentencepiece, runs of spaces included.

Sentencepiece merges from the best score down; the merges here are all pairs of pieces that make a piece, by that score.
A library's own conversion adds a prefix space to every part between special tokens, or folds spaces, and differs.
"""

import json
import shutil
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE

SPACE = "\u2581"
SPECIAL = ("<unk>", "<s>", "</s>")


def write_tokenizer(model: Path, folder: Path) -> None:
    """tokenizer.model itself, tokenizer.json and tokenizer_config.json."""
    shutil.copyfile(model, folder / "tokenizer.model")
    make_tokenizer(model).save(str(folder / "tokenizer.json"), pretty=False)
    unknown, begin, end = SPECIAL
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": unknown,
        "bos_token": begin,
        "eos_token": end,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2_048,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def make_tokenizer(model: Path) -> Tokenizer:
    processor = SentencePieceProcessor(model_file=str(model))
    pieces = [processor.id_to_piece(number) for number in range(processor.get_piece_size())]
    tokenizer = Tokenizer(
        BPE(
            vocab={piece: number for number, piece in enumerate(pieces)},
            merges=_merges(processor, pieces),
            unk_token=SPECIAL[0],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in SPECIAL])
    return tokenizer


def _merges(processor: SentencePieceProcessor, pieces: list[str]) -> list[tuple[str, str]]:
    """By the score of what they make, best first. Control, unknown and byte pieces are never made.

    Runs of spaces all have the same score, and sentencepiece then takes what stands leftmost: the longest left part.
    """
    made = {
        piece: processor.get_score(number)
        for number, piece in enumerate(pieces)
        if not (processor.is_control(number) or processor.is_unknown(number) or processor.is_byte(number))
    }
    pairs = [
        (-score, -cut, piece[:cut], piece[cut:])
        for piece, score in made.items()
        for cut in range(1, len(piece))
        if piece[:cut] in made and piece[cut:] in made
    ]
    return [(left, right) for _, _, left, right in sorted(pairs)]
