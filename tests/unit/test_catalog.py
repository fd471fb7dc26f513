from pathlib import Path

import pytest

from core.catalog import read_catalog
from core.errors import SetupError

ROOT = Path(__file__).parents[2]


def test_the_shipped_file_reads_and_prices_are_whole_nano():
    catalog = read_catalog(ROOT / "tramontane.toml")
    assert catalog.tier("open-mistral-7b").name == "mistral-tiny"
    assert catalog.tier("mistral-tiny").price.nano_per_thousand() == (140_000, 140_000, 420_000)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"0.14"', "0.14", "written as a string"),
        ("context_tokens = 2048", "context_tokens = -1", "mistral-tiny"),
        ("[plans.development]", "[plans.other]", "plan development"),
        ('"open-mistral-7b"', '"mistral-small"', "two tiers"),
        ("currency = ", "currency ", "not valid TOML"),
        ("slots = 48", "slotz = 48", "slotz"),
    ],
)
def test_a_broken_line_is_one_clear_sentence(tmp_path, old, new, says):
    text = (ROOT / "tramontane.toml").read_text()
    path = tmp_path / "tramontane.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SetupError) as caught:
        read_catalog(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
