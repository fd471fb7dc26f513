"""The tiers of an installation, read from tramontane.toml: what is served, by what, under which names and bounds."""

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from core.errors import SetupError
from core.queue.rules import RuleKind

FILE_NAME = "tramontane.toml"
NANO_PER_UNIT = 10**9
TOKENS_PER_PRICE = 1_000
MILLION = 10**6

EngineName = Literal["echo", "transformers", "vllm", "sentence-transformers", "hash"]


def _exact(value: object) -> Decimal:
    if not isinstance(value, str):
        raise ValueError('a price is written as a string, for example "0.14"')  # noqa: TRY004 - pydantic's contract
    return Decimal(value)


EuroPerMillion = Annotated[Decimal, BeforeValidator(_exact), Field(ge=0, le=10_000, decimal_places=6)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EchoOptions(_Strict):
    """The echo engine's pace, and what it does when a prompt asks for a fault."""

    tokens_per_s: float = Field(default=0.0, ge=0, description="Per request; 0 is as fast as it can.")
    prefill_tokens_per_s: float = Field(default=0.0, ge=0, description="Of the prompt; 0 is at once.")
    answer_tokens: int = Field(default=32, ge=1, le=1_000_000, description="Length of an answer that nothing limits.")
    faults: bool = Field(default=False, description="Obey [[echo:...]] in prompts: for drills, never in production.")


def _pairs(value: object) -> object:
    return tuple(value.items()) if isinstance(value, dict) else value


VllmArgument = tuple[Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,63}$")], bool | int | float | str]


class VllmOptions(_Strict):
    """How the vLLM engine lays out a model. `args` are pairs here, a table in the file."""

    tensor_parallel: int = Field(default=1, ge=1, le=64, description="Cards that share each layer.")
    pipeline_parallel: int = Field(default=1, ge=1, le=64, description="Groups of cards that share the layers out.")
    executor: Literal["mp", "ray"] | None = Field(
        default=None, description="mp: the cards of this machine; ray: those of a Ray cluster; absent: vLLM chooses."
    )
    quantisation: str | None = Field(
        default=None, pattern="^[a-z0-9_-]{1,40}$", description="As vLLM names it: fp8, awq, gptq; absent: as stored."
    )
    gpu_memory_utilisation: float = Field(default=0.9, gt=0, le=1, description="Part of a card's memory it may use.")
    kv_cache_mb: int | None = Field(
        default=None,
        ge=16,
        le=4_194_304,
        description="For the KV cache, on each card; absent: 256 on a CPU, else what is left.",
    )
    args: Annotated[tuple[VllmArgument, ...], BeforeValidator(_pairs), Field(max_length=32)] = Field(
        default=(), description="Further engine arguments, as vLLM's EngineArgs names them."
    )


class LaunchPrice(_Strict):
    """Currency units per million tokens, as decimal strings."""

    input: EuroPerMillion = Field(description="Prompt tokens.")
    output: EuroPerMillion = Field(default=Decimal(0), description="Generated tokens.")
    cached: EuroPerMillion | None = Field(default=None, description="Prompt tokens found in a cache; absent: as input.")

    @model_validator(mode="after")
    def _cached_is_no_dearer(self) -> "LaunchPrice":
        if self.cached is not None and self.cached > self.input:
            raise ValueError("cached input cannot cost more than input: what is reserved would not cover it")
        return self

    def nano_per_thousand(self) -> tuple[int, int, int]:
        """Input, cached input, output in integer nano-units per 1 000 tokens."""
        cached = self.input if self.cached is None else self.cached
        return _nano(self.input), _nano(cached), _nano(self.output)


class Tier(_Strict):
    """One public model name and the pool behind it."""

    name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$")
    kind: Literal["chat", "embed"] = Field(default="chat", description="chat or embed.")
    engine: EngineName = Field(
        description="echo, transformers or vllm for chat; sentence-transformers or hash for embed."
    )
    weights: str = Field(description="A folder, a hub id, or demo:NAME for a checkpoint of ours.")
    tokenizer: str = Field(
        default="v1", description="v1, v3, v3-tekken, v7 of mistral-common, or a file; not used by embed."
    )
    context_tokens: int = Field(gt=0, le=1_048_576, description="Prompt and answer together; of embed: one text.")
    dimensions: int | None = Field(default=None, gt=0, description="Of an embedding; only for embed, required there.")
    aliases: tuple[str, ...] = Field(default=(), description="Further names that it answers to.")
    capabilities: tuple[Literal["completion_chat", "function_calling", "completion_fim"], ...] = Field(
        default=(), description="As GET /v1/models states them: completion_chat, function_calling, completion_fim."
    )
    description: str = Field(default="", description="As GET /v1/models shows it.")
    temperature_default: float = Field(default=0.7, ge=0, le=1.5, description="Where a request names none.")
    slots: int = Field(default=32, ge=1, le=4_096, description="Requests that one worker holds at once.")
    pool_reserve: float = Field(
        default=0.25, ge=0, lt=1, description="Part of the slots that no workspace above its share gets."
    )
    queue_jobs_max: int = Field(
        default=2_000, ge=1, le=1_000_000, description="Waiting requests; more are refused with 429."
    )
    batch_tokens_max: int = Field(default=1_024, ge=16, description="Tokens of one engine step.")
    threads: int = Field(default=1, ge=1, le=512, description="CPU threads of the engine.")
    device: str = Field(default="cpu", description="As torch names it: cpu, cuda, cuda:1.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="Of weights and activations: float32, bfloat16 or float16."
    )
    interpreter: Path | None = Field(
        default=None, description="The python of this pool's worker; absent: of vllm .venv-vllm, else the platform's."
    )
    echo: EchoOptions = Field(default=EchoOptions(), description="Only for the echo engine.")
    vllm: VllmOptions = Field(default=VllmOptions(), description="Only for the vllm engine.")
    price: LaunchPrice = Field(description="At the launch; seeds the database.")

    @model_validator(mode="after")
    def _fits_together(self) -> "Tier":
        if self.kind == "embed" and self.dimensions is None:
            raise ValueError("an embedding tier states its dimensions")
        if (self.kind == "embed") != (self.engine in {"sentence-transformers", "hash"}):
            raise ValueError(f"engine {self.engine} does not serve kind {self.kind}")
        return self


class Plan(_Strict):
    """Limits that a new organisation starts with; every one is evaluated at each admission."""

    requests_per_second: int | None = Field(default=None, gt=0, le=2**52, description="Of the organisation, in any s.")
    requests_per_minute: int = Field(gt=0, le=2**52, description="Of the organisation, in any 60 s.")
    tokens_per_minute: int = Field(gt=0, le=2**52, description="A bucket of so many that refills evenly.")
    tokens_per_month: int | None = Field(
        default=None, gt=0, le=2**52, description="In a calendar month of the organisation's time zone."
    )
    concurrency: int = Field(gt=0, le=2**52, description="Requests open at once, waiting ones too.")
    spend_per_day: Decimal | None = Field(
        default=None, gt=0, le=4_000_000, description="Currency units in a calendar day of the organisation."
    )
    spend_per_month: Decimal | None = Field(
        default=None, gt=0, le=4_000_000, description="Currency units in a calendar month of the organisation."
    )
    credit: Decimal = Field(ge=0, le=4_000_000, description="Currency units given once.")
    weight: int = Field(default=1, ge=1, le=1_000, description="Share in the fair queue.")

    @property
    def credit_nano(self) -> int:
        return int(self.credit * NANO_PER_UNIT)

    @property
    def limits(self) -> dict[RuleKind, int]:
        """Those that are set, spending in nano-units."""
        values = {kind: getattr(self, kind.value) for kind in RuleKind}
        return {
            kind: int(value * NANO_PER_UNIT) if isinstance(value, Decimal) else int(value)
            for kind, value in values.items()
            if value is not None
        }


class Catalog(_Strict):
    currency: str = Field(default="EUR", pattern="^[A-Z]{3}$")
    plans: dict[str, Plan]
    tiers: tuple[Tier, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Catalog":
        names = [name for tier in self.tiers for name in (tier.name, *tier.aliases)]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"two tiers answer to the name {doubled[0]}")
        if "development" not in self.plans:
            raise ValueError("the plan development is missing")
        return self

    def tier(self, name: str) -> Tier | None:
        """By name or alias."""
        return next((tier for tier in self.tiers if name == tier.name or name in tier.aliases), None)

    def only(self, names: frozenset[str]) -> "Catalog":
        unknown = sorted(names - {tier.name for tier in self.tiers})
        if unknown:
            raise SetupError(f"There is no tier {unknown[0]}; {FILE_NAME} has {', '.join(t.name for t in self.tiers)}.")
        return self.model_copy(update={"tiers": tuple(tier for tier in self.tiers if tier.name in names)})

    def with_engine(self, engine: Literal["echo", "transformers", "vllm"]) -> "Catalog":
        """The same chat tiers behind another engine; embedding tiers stay."""
        tiers = tuple(
            tier.model_copy(update={"engine": engine}) if tier.kind == "chat" else tier for tier in self.tiers
        )
        return self.model_copy(update={"tiers": tiers})


def read_catalog(path: Path) -> Catalog:
    """Read and check the file, or raise SetupError with one sentence that names the place."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SetupError(f"{path} does not exist; set TRAMONTANE_CONFIG to your {FILE_NAME}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} is not valid TOML: {error}.") from error
    try:
        tiers = tuple({"name": name, **table} for name, table in raw.pop("tiers", {}).items())
        return Catalog.model_validate({**raw, "tiers": tiers})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(_place(part, tiers) for part in first["loc"]) or "the file"
        raise SetupError(f"{path}: {place}: {first['msg']}.") from error
    except (TypeError, AttributeError) as error:
        raise SetupError(f"{path}: [tiers] holds one table for each tier.") from error


def _place(part: int | str, tiers: tuple[dict[str, object], ...]) -> str:
    return str(tiers[part]["name"]) if isinstance(part, int) and part < len(tiers) else str(part)


def _nano(per_million: Decimal) -> int:
    exact = per_million * NANO_PER_UNIT * TOKENS_PER_PRICE / MILLION
    assert exact == exact.to_integral_value(), "six decimal places of a unit per million are whole nano per thousand"
    return int(exact)
