"""A tier's lines in tramontane.toml as vLLM's engine arguments."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform

from core.catalog import Tier
from core.errors import SetupError
from workers.engines.vllm_sampler import KEY

CPU_KV_CACHE_MB = 256
LIKELIEST_MAX = 20  # that a request may ask for beside each token
SAMPLER = "workers.engines.vllm_sampler:Sampler"
WORKER = "workers.engines.vllm_worker.CountingWorker"

# What the adapter relies on: no tier may say otherwise.
_FIXED: Mapping[str, object] = MappingProxyType(
    {
        "skip_tokenizer_init": True,  # token ids in, token ids out
        "generation_config": "vllm",  # a request says how it is sampled, not the checkpoint
        "logits_processors": [SAMPLER],
        "worker_cls": WORKER,
        "logprobs_mode": "raw_logprobs",
        "max_logprobs": LIKELIEST_MAX,
        "scheduling_policy": "priority",
        "disable_log_stats": True,
    }
)
# What a tier may change in `vllm.args`.
_USUAL: Mapping[str, object] = MappingProxyType({"enable_prefix_caching": True, "async_scheduling": False, "seed": 0})


def engine_config(tier: Tier, weights: str) -> VllmConfig:
    """Reads the model's configuration, not yet its weights. Raises SetupError with one sentence."""
    given = dict(tier.vllm.args)
    theirs = sorted(given.keys() & (_FIXED.keys() | _of_the_tier(tier, weights).keys()))
    if theirs:
        raise SetupError(f"{tier.name}: vllm.args cannot set {theirs[0]}: the platform does.")
    device = tier.device.partition(":")[0]
    if device != current_platform.device_type:
        raise SetupError(f"{tier.name}: device is {tier.device}, but this vLLM is for {current_platform.device_type}.")
    values = {**_USUAL, "enforce_eager": device == "cpu", **given, **_of_the_tier(tier, weights), **_FIXED}
    try:
        config = AsyncEngineArgs(**values).create_engine_config()
    except (TypeError, ValueError, OSError) as error:
        raise SetupError(f"{tier.name}: vLLM does not take its configuration: {_first_line(error)}") from error
    config.additional_config[KEY] = {"tokenizer": tier.tokenizer, "eos_ids": list(eos_ids(config))}
    return config


def eos_ids(config: VllmConfig) -> tuple[int, ...]:
    """The tokens that end an answer: what the checkpoint says of generation, else of the model."""
    said = config.model_config.try_get_generation_config().get("eos_token_id")
    if said is None:
        said = getattr(config.model_config.hf_text_config, "eos_token_id", None)
    return () if said is None else (said,) if isinstance(said, int) else tuple(said)


def _of_the_tier(tier: Tier, weights: str) -> dict[str, Any]:
    options = tier.vllm
    kv_cache_mb = options.kv_cache_mb
    if kv_cache_mb is None and tier.device == "cpu":
        kv_cache_mb = CPU_KV_CACHE_MB
    return {
        "model": weights,
        "dtype": tier.dtype,
        "max_model_len": tier.context_tokens,
        "max_num_seqs": tier.slots,
        "max_num_batched_tokens": max(tier.batch_tokens_max, tier.slots),
        "tensor_parallel_size": options.tensor_parallel,
        "pipeline_parallel_size": options.pipeline_parallel,
        "distributed_executor_backend": options.executor,
        "quantization": options.quantisation,
        "gpu_memory_utilization": options.gpu_memory_utilisation,
        "kv_cache_memory_bytes": None if kv_cache_mb is None else kv_cache_mb * 1024**2,
    }


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
