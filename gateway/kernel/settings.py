"""Settings: from the environment (``STRATOGRAPH_*``), then ``stratograph.toml`` in the state directory or at
``STRATOGRAPH_CONFIG``, then defaults. A misspelt name is refused, in the file and in the environment alike.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

PREFIX = "STRATOGRAPH_"
CONFIG = "STRATOGRAPH_CONFIG"
OF_THE_CLIENT = frozenset({"STRATOGRAPH_URL", "STRATOGRAPH_TOKEN", "STRATOGRAPH_CA"})
"""Variables that gateway/client/commands/stored.py reads: no settings, and no misspelt ones either."""

List = Annotated[list[str], NoDecode]


class Settings(BaseSettings):
    """Every setting, its default and its meaning. ``stratograph settings`` prints this list."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    state_dir: Path = Field(default=Path(".state"), description="Folder of the database, images, secrets and caches.")
    listen: str = Field(default="127.0.0.1:8080", description="Address and port of the API, as host:port.")
    currency: str = Field(
        default="XXX", pattern=r"^[A-Z]{3}$",
        description="What prices are in: an ISO 4217 code such as EUR; XXX is its word for none in particular.",
    )  # fmt: skip
    public_url: str | None = Field(
        default=None, description="How clients reach the API, such as https://cloud.example; from LISTEN by default."
    )
    database_url: str | None = Field(
        default=None,
        description="sqlite:///path or postgresql://user:password@host/name; SQLite in STATE_DIR by default.",
    )
    broker_url: str | None = Field(
        default=None, description="amqp:// or redis:// for separate workers; workers inside the API process by default."
    )
    admin_password: str | None = Field(
        default=None, repr=False, min_length=8, max_length=1024,
        description="Password of the user admin; generated into STATE_DIR/admin-password by default.",
    )  # fmt: skip
    drivers: List = Field(default=["kvm", "esxi", "sim"], description="Drivers this process may use, comma separated.")
    workers: bool | None = Field(
        default=None, description="Run jobs inside the API process; yes by default when there is no BROKER_URL."
    )
    worker_threads: int = Field(default=8, ge=1, le=256, description="Jobs carried out at once by one process.")
    share_core: bool = Field(
        default=True,
        description="Keep the threads of a process on one core at a time, the freest; off: where the system puts them.",
    )
    session_ttl_s: int = Field(default=3600, ge=60, le=86400, description="Seconds a session's token lasts.")
    cors_origins: List = Field(default=[], description="Origins whose pages may call the API, comma separated.")
    trusted_documents: Path | None = Field(
        default=None, description="A persisted-documents.json; only operations in it are accepted."
    )
    allowed_import_networks: List = Field(
        default=[], description="Private ranges that imageImport may fetch from, comma separated; none by default."
    )
    allowed_webhook_networks: List = Field(
        default=[], description="Private ranges that webhooks may be sent to, comma separated; none by default."
    )
    max_image_gib: int = Field(default=64, ge=1, le=65536, description="Largest image file, in GiB.")
    max_virtual_gib: int = Field(default=2048, ge=1, le=65536, description="Largest virtual size of an image, in GiB.")
    operation_timeout_s: float = Field(
        default=15.0, gt=0, le=600, description="Seconds one GraphQL operation may take."
    )
    compression: bool = Field(default=True, description="Pack GraphQL answers above 4 KiB for clients that take gzip.")
    read_planner: bool = Field(
        default=True,
        description="Answer queries by one SQL statement where one can say it; off: always field by field.",
    )
    rate_limit: int = Field(
        default=1_000_000,
        ge=0,
        description="Cost of operations one caller may spend a minute, by process; 0: no limit.",
    )
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe log line.")
    log_format: str = Field(
        default="auto", pattern="^(auto|json|text)$", description="Log lines as JSON or for people."
    )
    metrics_token: str | None = Field(
        default=None, repr=False, description="Bearer token that /metrics asks for; open to all when unset."
    )
    console_idle_s: float = Field(
        default=1800.0, ge=1, le=43200, description="Seconds a graphical console may stand idle before it is closed."
    )
    resize_confirm_after_s: int = Field(
        default=86_400, ge=0, le=31_536_000,
        description="Seconds a server's new size waits for serverResizeConfirm before it stays by itself; 0: for ever.",
    )  # fmt: skip
    conversion_timeout_s: int = Field(
        default=86_400, ge=60, le=2_592_000,
        description="Seconds virt-v2v may take for a guest, where a move asks for it; then the move is taken back.",
    )  # fmt: skip
    sample_every_s: float = Field(default=30.0, ge=1, le=3600, description="Seconds between samples of each host.")

    @field_validator("drivers", "cors_origins", "allowed_import_networks", "allowed_webhook_networks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or not 0 <= int(port) <= 65535:  # noqa: PLR2004 - a port's range
            raise ValueError("must be host:port, such as 127.0.0.1:8080 or [::]:8080")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the TOML file."""
        _ = (dotenv_settings, file_secret_settings)
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=_config_file())

    @property
    def host(self) -> str:
        """The address to listen on, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on."""
        return int(self.listen.rpartition(":")[2])

    @property
    def url(self) -> str:
        """How clients reach the API, without a slash at the end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.port}"

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{(self.state_dir / 'stratograph.db').resolve()}"

    @property
    def embedded(self) -> bool:
        """Whether this API process carries out jobs itself."""
        return self.workers if self.workers is not None else self.broker_url is None


def load(**given: Any) -> Settings:
    """Read the settings. Raises ValueError with every problem, unknown environment names among them."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields} | {CONFIG} | OF_THE_CLIENT
    unknown = sorted(
        name for name in os.environ
        if name.startswith(PREFIX) and name not in known and not name.startswith(f"{PREFIX}TEST_")
    )  # fmt: skip
    if unknown:
        raise ValueError(f"unknown settings in the environment: {', '.join(unknown)}")
    return Settings(**given)


def _config_file() -> Path:
    named = os.environ.get(CONFIG)
    if named:
        return Path(named)
    return Path(os.environ.get(f"{PREFIX}STATE_DIR", ".state")) / "stratograph.toml"
