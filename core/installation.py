"""Which tiers this installation serves: the file, narrowed by what `tramontane up` was told."""

from pathlib import Path

from core.catalog import FILE_NAME, Catalog, read_catalog
from core.settings import PlatformSettings

BESIDE_THE_PROGRAM = Path(__file__).resolve().parents[1] / FILE_NAME


def config_path(settings: PlatformSettings) -> Path:
    """TRAMONTANE_CONFIG, else the file in the working folder, else the one that came with the program."""
    if settings.config is not None:
        return settings.config
    here = Path(FILE_NAME)
    return here if here.exists() else BESIDE_THE_PROGRAM


def catalog_for(settings: PlatformSettings) -> Catalog:
    """The catalog as every process of this installation sees it. Raises SetupError with one sentence."""
    catalog = read_catalog(config_path(settings))
    names = frozenset(name.strip() for name in settings.tiers.split(",") if name.strip())
    if names:
        catalog = catalog.only(names)
    return catalog if settings.engine is None else catalog.with_engine(settings.engine)
