"""Where a tier's tokenizer lies: a version's own file out of mistral-common, or a file that the operator names."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from core.errors import SetupError

VERSIONS: Mapping[str, str] = MappingProxyType(
    {
        "v1": "tokenizer.model.v1",
        "v3": "mistral_instruct_tokenizer_240323.model.v3",
        "v3-tekken": "tekken_240718.json",
        "v7": "mistral_instruct_tokenizer_241114.model.v7",
    }
)


def tokenizer_file(name: str) -> Path:
    """The file behind `tokenizer` of a tier: v1, v3, v3-tekken, v7, or a path."""
    version = VERSIONS.get(name)
    path = Path(name) if version is None else Path(str(files("mistral_common") / "data" / version))
    if not path.is_file():
        raise SetupError(f"There is no tokenizer {name}: it is neither one of {', '.join(VERSIONS)} nor a file.")
    return path
