"""The configuration page says what the settings classes say."""

from pathlib import Path

from cli.configuration import PROCESSES, TABLES, document, variable

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_what_the_classes_say():
    assert PAGE.read_text(encoding="utf-8") == document(), "run `make docs`"


def test_every_field_is_on_it_with_a_meaning():
    text = document()
    for _, settings in PROCESSES:
        for name, field in settings.model_fields.items():
            assert f"`{variable(name, field)}`" in text
            assert field.description, f"{settings.__name__}.{name} does not say what it means"
    for heading, _, table in TABLES:
        for name, field in table.model_fields.items():
            assert field.description or name == "name", f"{heading} {name} does not say what it means"
