"""docs/configuration.md, written from the settings classes and the catalog: `python -m cli.configuration`.

A test compares the file with what this writes.
"""

import sys
from collections.abc import Iterable

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from billing.settings import CelerySettings, CollectorSettings
from core.catalog import FILE_NAME, EchoOptions, LaunchPrice, Plan, Tier, VllmOptions
from core.settings import PlatformSettings
from embed.settings import EmbedSettings
from gateway.accounts.settings import AccountSettings
from gateway.settings import GatewaySettings
from workers.settings import WorkerSettings

PREFIX = "TRAMONTANE_"
PROCESSES: tuple[tuple[str, type[PlatformSettings]], ...] = (
    ("Gateway", GatewaySettings),
    ("Worker", WorkerSettings),
    ("Embedding service", EmbedSettings),
    ("Collector", CollectorSettings),
    ("Celery", CelerySettings),
)
TABLES: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("[plans.NAME]", "Limits of an organisation. They seed the database on the first start; then SQL counts.", Plan),
    ("[tiers.NAME]", "One public model name and the pool behind it.", Tier),
    ("[tiers.NAME.price]", "Currency units per million tokens, as decimal strings.", LaunchPrice),
    ("[tiers.NAME.echo]", "How the echo engine behaves.", EchoOptions),
    ("[tiers.NAME.vllm]", "How the vLLM engine lays out a model.", VllmOptions),
)
INTRODUCTION = f"""# Configuration

Written by `python -m cli.configuration`; a test compares.

Two places: environment variables say where things are and how long to wait, `{FILE_NAME}` says what is served. Every
process reads the same variables, so `tramontane run NAME` does in any shell what `tramontane up` does in its own.
"""
FILE_INTRODUCTION = f"""## {FILE_NAME}

Found at `TRAMONTANE_CONFIG`, else in the working folder, else beside the program. At the top stands `currency`, three
letters, `"EUR"` if absent. A field that is not known is refused, with its place.
"""


def document() -> str:
    shared = set(PlatformSettings.model_fields)
    parts = [INTRODUCTION, "## Every process\n", _variables(PlatformSettings, PlatformSettings.model_fields)]
    accounts = [name for name in AccountSettings.model_fields if name not in shared]
    parts += ["## Gateway and command line\n", _variables(AccountSettings, accounts)]
    known = shared | set(accounts)
    for title, cls in PROCESSES:
        parts += [f"## {title}\n", _variables(cls, [name for name in cls.model_fields if name not in known])]
    parts.append(FILE_INTRODUCTION)
    for heading, meaning, table in TABLES:
        rows = [_row(name, field) for name, field in table.model_fields.items() if name != "name"]
        parts += [f"### {heading}\n", meaning + "\n", _table("field", rows)]
    return "\n".join(parts)


def variable(name: str, field: FieldInfo) -> str:
    """The environment variable that is read first for a field."""
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else PREFIX + name.upper()


def _variables(cls: type[PlatformSettings], names: Iterable[str]) -> str:
    fields = {name: cls.model_fields[name] for name in names}
    return _table("variable", [_row(variable(name, field), field) for name, field in fields.items()])


def _row(name: str, field: FieldInfo) -> tuple[str, str, str]:
    return f"`{name}`", _default(field), field.description or ""


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None or field.default in {"", ()}:
        return "-"
    if isinstance(field.default, BaseModel):
        return "as below"
    return f"`{field.default}`"


def _table(first: str, rows: list[tuple[str, str, str]]) -> str:
    lines = [f"| {first} | default | meaning |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
