"""What a gateway process is told by its environment."""

from pathlib import Path

from pydantic import AliasChoices, Field

from gateway.accounts.settings import AccountSettings


class GatewaySettings(AccountSettings):
    host: str = Field(default="127.0.0.1", description="Address to bind, unless listen_fd is given.")
    port: int = Field(default=8_000, ge=0, le=65_535, description="0 takes any free one.")
    listen_fd: int | None = Field(default=None, ge=0, description="A listening socket inherited from `up`.")
    console_socket: Path | None = Field(
        default=None,
        description="A Unix socket where a process of its own, `tramontane run console`, answers /console; absent: "
        "each gateway does.",
    )
    backlog: int = Field(default=2_048, ge=1, description="Connections waiting to be accepted.")

    body_bytes_max: int = Field(default=4 * 2**20, ge=1_024, description="A larger body is refused with 413.")
    body_s_max: float = Field(default=30.0, gt=0, description="A body that takes longer is refused with 408.")
    head_bytes_max: int = Field(default=64 * 2**10, ge=4_096, description="Request line and headers together.")
    head_s_max: float = Field(default=10.0, gt=0, description="From the first byte to the end of the headers.")
    discard_bytes_max: int = Field(default=64 * 2**20, ge=0, description="Read and dropped after an early refusal.")
    keep_alive_s: int = Field(default=75, ge=1, description="An idle connection is closed after this long.")
    write_stall_s_max: float = Field(default=60.0, gt=0, description="A reader that is stuck for this long is cut.")

    headers_hold_s: float = Field(
        default=10.0, gt=0, description="How long a stream waits for its first event, and between comments."
    )
    cors_origins: str = Field(
        default="",
        description="Origins of web pages that may call the API from a browser, comma-separated; empty: none.",
    )
    payment_note: str = Field(
        default="",
        max_length=1_000,
        description="How customers pay, such as an account to transfer to; stands on the page Billing.",
    )
    drain_s: int = Field(default=30, ge=1, description="After SIGTERM, what open requests get to end.")
    metrics_dir: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("TRAMONTANE_METRICS_DIR", "PROMETHEUS_MULTIPROC_DIR"),
        description="Shared by all gateways of a machine; /metrics then sums over them.",
    )
