"""What the `weights` of a tier stand for: a checkpoint of ours, a folder, or an id on a model hub."""

from pathlib import Path

DEMO = "demo:"
MODELS = "models"


def resolve_weights(weights: str, home: Path) -> Path | str:
    """demo:NAME is home/models/NAME, a path is that folder (which may not exist), anything else is a hub id."""
    if weights.startswith(DEMO):
        return home / MODELS / weights.removeprefix(DEMO)
    path = Path(weights).expanduser()
    if path.is_absolute() or weights.startswith(".") or path.exists():
        return path
    return weights
