"""Settings of a running service: the only reader of the environment.

Every field can be set by an environment variable of its name with the prefix `GSCO_`, by a file
named like that variable in GSCO_SECRETS_FOLDER, or by an argument; an argument wins over the
environment, which wins over files. A variable that names no setting does not stop the service:
`unknown_variables` lists it with the nearest name, for the log. Kubernetes makes variables such
as `GSCO_PORT_80_TCP` for a service called gsco; these are known for what they are.
"""

import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BeforeValidator,
    Field,
    IPvAnyAddress,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.errors import Misconfigured
from service.servers import AeTitle, DicomwebSource, PacsTarget, UpsWorklist

PREFIX = "GSCO_"
SECRETS = PREFIX + "SECRETS_FOLDER"
NANO_GENERALIST = Path(__file__).parent / "generalist" / "nano"
MEBIBYTE = 1024 * 1024
_KUBERNETES_LINK = re.compile(r"GSCO_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)")


def _names(value: Any) -> Any:
    """Names with semicolons between them; licences and sites may hold commas."""
    if not isinstance(value, str):
        return value
    return tuple(name.strip() for name in value.split(";") if name.strip())


def _pairs(value: Any) -> Any:
    """`NAME=VALUE` with semicolons between them; a name alone has an empty value."""
    if not isinstance(value, str):
        return value
    pairs = (entry.partition("=") for entry in _names(value))
    return {name.strip(): said.strip() for name, _, said in pairs}


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("is not JSON") from None


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]
AeTasks = Annotated[dict[AeTitle, str], NoDecode, BeforeValidator(_pairs)]
AePeers = Annotated[dict[AeTitle, IPvAnyAddress], NoDecode, BeforeValidator(_pairs)]


Sources = Annotated[tuple[DicomwebSource, ...], NoDecode, BeforeValidator(_json)]
Targets = Annotated[tuple[PacsTarget, ...], NoDecode, BeforeValidator(_json)]
OneWorklist = Annotated[UpsWorklist | None, NoDecode, BeforeValidator(_json)]


class Settings(BaseSettings):
    """Where things are and how much of everything is allowed; sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    home: Path = Field(Path(".gsco"), description="folder of tasks, specialists, indexes, database")
    database_url: str = Field(
        default_factory=lambda data: _sqlite_in(data["home"]),
        repr=False,
        description="SQLAlchemy URL, may hold a password; default: gsco.db in the home folder",
    )
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)

    authentication: bool = Field(
        False, description="callers need an API key, or a token where an issuer is set"
    )
    allow_anonymous: bool = Field(
        False, description="answer everybody on any address: behind a gateway of your own"
    )
    rate_limit: str = Field(
        "600/minute", description="of each caller: a number per second, minute, hour or day"
    )
    oidc_issuer: str = Field("", description="of tokens, exactly as they name it; https")
    oidc_audience: str = Field("", description="what tokens call this service")
    oidc_jwks_url: str = Field("", description="of the issuer's keys; default: by discovery")
    oidc_algorithms: Names = Field(("RS256", "ES256"), description="of a token's signature")
    oidc_roles_claim: str = Field("roles", description="claim, or path, that holds the roles")
    oidc_roles: Names = Field(
        (), description="WORD=role for each word of the issuer; default: its words are our roles"
    )
    oidc_client_id: str = Field(
        "", description="of the page at the issuer, a public client: people sign in there"
    )
    oidc_scopes: Names = Field(("openid",), description="that the page asks the issuer for")

    generalist_engine: Literal["embedded", "vllm"] = "embedded"
    generalist_path: Path = Field(NANO_GENERALIST, description="checkpoint of the embedded engine")
    generalist_adapter: Path | None = Field(
        None, description="LoRA adapter that the embedded engine adds to its checkpoint"
    )
    generalist_url: str = Field("", description="OpenAI-compatible server of the vllm engine")
    generalist_model: str = Field("", description="name of the model on that server")
    generalist_api_key: SecretStr | None = None
    generalist_timeout_seconds: PositiveFloat = 60.0
    prompt_template: str = Field(
        "rich", description="rich, rich_segmentation, paper, or a .toml file of one's own"
    )

    specialists_url: str = Field(
        "",
        pattern=r"^(https?://[^\s/?#@]+(/[^\s?#]*)?)?$",
        description="the panel as a Ray Serve application; unset: in this process",
    )
    specialists_timeout_seconds: PositiveFloat = 30.0
    device: str = Field("cpu", description="torch device of the specialists")
    threads: PositiveInt | None = Field(
        None,
        description="torch threads of the generalist, specialists run at once; unset: 1 and 2",
    )
    specialists_memory_mb: PositiveInt | None = Field(
        None, description="bound of the specialists' weights; tasks unused for longest are unloaded"
    )
    neighbours: int = Field(10, ge=1, le=50, description="reference cases shown to the generalist")
    retrieval_licences: Names = Field((), description="only cases of these licences are retrieved")
    retrieval_sources: Names = Field((), description="only cases of these sources (sites)")
    retrieval_modalities: Names = Field((), description="only cases of these modalities")
    retrieval_since: AwareDatetime | None = Field(
        None, description="only cases added since, as 2026-01-31T00:00:00Z"
    )

    max_upload_bytes: PositiveInt = Field(64 * MEBIBYTE, description="largest request body")
    max_pixels: PositiveInt = Field(50_000_000, description="of the frame that is decoded")
    decode_timeout_seconds: PositiveFloat = 20.0
    decode_memory_bytes: PositiveInt = 3 * 1024 * MEBIBYTE
    decode_workers: PositiveInt = 1
    pseudonym_key: SecretStr = Field(
        SecretStr(""), description="secret with which patient identifiers become pseudonyms"
    )
    burned_in_text: Literal["flag", "refuse"] = Field(
        "flag", description="what becomes of a DICOM image with text in its pixels"
    )
    max_concurrent_cases: PositiveInt = Field(32, description="over it: 503 with Retry-After")
    retry_after_seconds: NonNegativeInt = 5

    dicomweb_sources: Sources = Field(
        (),
        description='where images named by UIDs are fetched: [{"name": "pacs", "url": "https://..."}]'
        ", with user and password, or token",
    )
    stow_max_bytes: PositiveInt = Field(1024 * MEBIBYTE, description="largest STOW-RS request")
    dicom_host: str = Field("127.0.0.1", description="address that C-STORE is received on")
    dicom_port: int | None = Field(None, ge=1, le=65535, description="unset: no C-STORE")
    dicom_ae_titles: AeTasks = Field(
        {"GSCO": ""},
        description="our AE titles, with a task or none: GSCO; CXR=cxr-pneumonia",
    )
    dicom_peers: AePeers = Field(
        {}, description="who may send, AE title and address: ORTHANC=10.0.0.5; PACS=10.0.0.6"
    )
    dicom_max_associations: PositiveInt = 10
    pacs_targets: Targets = Field(
        (),
        description="where results are sent: "
        '[{"name": "pacs", "url": "https://..."}] with user and password, or token; '
        'or [{"name": "pacs", "ae_title": "PACS", "host": "10.0.0.6", "port": 104}]',
    )
    ups_worklist: OneWorklist = Field(
        None,
        description='workitems to perform: {"name": "ris", "url": "https://...", "source": "pacs"}',
    )

    job_workers: PositiveInt = Field(4, description="jobs that are answered at once")
    max_queued_jobs: PositiveInt = Field(2000, description="over it: 503 with Retry-After")
    spool_folder: Path = Field(
        default_factory=lambda data: data["home"] / "spool",
        description="images of waiting jobs; default: spool in the home folder",
    )
    max_spool_bytes: PositiveInt = 8 * 1024 * MEBIBYTE
    job_lease_seconds: PositiveFloat = Field(
        15.0, description="a worker not seen for so long counts as dead, and its jobs as nobody's"
    )
    job_retention_hours: PositiveFloat = Field(168.0, description="ended jobs are kept so long")
    idempotency_hours: PositiveFloat = Field(24.0, description="Idempotency-Keys are kept so long")
    webhook_urls: Names = Field((), description="addresses that webhooks may go to, or below")
    webhook_secret: SecretStr = Field(
        SecretStr(""), description="whsec_ and base64; several while one is being replaced"
    )

    otlp_endpoint: str = Field(
        "", pattern=r"^(https?://[^\s?#@]+)?$", description="OTLP over HTTP: where traces are sent"
    )
    trace_share: float = Field(1.0, ge=0, le=1, description="of the traces that begin here")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator("home", "generalist_path", "spool_folder")
    @classmethod
    def _expand_user(cls, path: Path) -> Path:
        return path.expanduser()

    @field_validator(
        "log_level", "log_format", "generalist_engine", "burned_in_text", mode="before"
    )
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("port", mode="before")
    @classmethod
    def _ignore_kubernetes_link(cls, value: Any) -> Any:
        """A Kubernetes service called gsco sets GSCO_PORT=tcp://10.0.0.1:8000 in every pod."""
        is_link = isinstance(value, str) and value.startswith(("tcp://", "udp://"))
        return cls.model_fields["port"].default if is_link else value

    @model_validator(mode="after")
    def _vllm_needs_an_address(self) -> Self:
        if self.generalist_engine != "vllm":
            return self
        for name in ("generalist_url", "generalist_model"):
            if not getattr(self, name):
                raise ValueError(f"generalist_engine 'vllm' needs {PREFIX}{name.upper()}")
        if self.generalist_adapter is not None:
            raise ValueError(
                f"{PREFIX}GENERALIST_ADAPTER is for the embedded engine: vLLM serves an adapter "
                f"itself, under the name that {PREFIX}GENERALIST_MODEL asks for"
            )
        return self

    @model_validator(mode="after")
    def _dicom_needs_peers(self) -> Self:
        if self.dicom_port is not None and not self.dicom_peers:
            raise ValueError(f"{PREFIX}DICOM_PORT needs {PREFIX}DICOM_PEERS: nobody else may send")
        names = [source.name for source in self.dicomweb_sources]
        if len(set(names)) < len(names):
            raise ValueError(f"{PREFIX}DICOMWEB_SOURCES: two sources have the same name")
        return self

    @model_validator(mode="after")
    def _targets_are_told_apart(self) -> Self:
        names = [target.name for target in self.pacs_targets]
        if len(set(names)) < len(names):
            raise ValueError(f"{PREFIX}PACS_TARGETS: two targets have the same name")
        if any(target.outside for target in self.pacs_targets) and not self.pseudonym_key:
            raise ValueError(f"{PREFIX}PACS_TARGETS: a target outside needs {PREFIX}PSEUDONYM_KEY")
        return self

    @model_validator(mode="after")
    def _webhooks_are_signed(self) -> Self:
        if not self.webhook_urls:
            return self
        if not all(url.startswith(("https://", "http://")) for url in self.webhook_urls):
            raise ValueError(f"{PREFIX}WEBHOOK_URLS: each begins with https:// or http://")
        if not self.webhook_secret.get_secret_value():
            raise ValueError(f"{PREFIX}WEBHOOK_URLS needs {PREFIX}WEBHOOK_SECRET")
        return self

    @model_validator(mode="after")
    def _identity_is_one_thing(self) -> Self:
        if self.authentication and self.allow_anonymous:
            raise ValueError(f"{PREFIX}AUTHENTICATION and {PREFIX}ALLOW_ANONYMOUS: set one of them")
        if not self.oidc_issuer:
            if self.oidc_client_id:
                raise ValueError(f"{PREFIX}OIDC_CLIENT_ID needs {PREFIX}OIDC_ISSUER")
            return self
        if not self.oidc_audience:
            raise ValueError(f"{PREFIX}OIDC_ISSUER needs {PREFIX}OIDC_AUDIENCE")
        if not self.authentication:
            raise ValueError(f"{PREFIX}OIDC_ISSUER needs {PREFIX}AUTHENTICATION=true")
        return self

    @model_validator(mode="after")
    def _worklist_has_a_source(self) -> Self:
        if self.ups_worklist is None:
            return self
        if self.ups_worklist.source not in {source.name for source in self.dicomweb_sources}:
            raise ValueError(f"{PREFIX}UPS_WORKLIST: its source is not in {PREFIX}DICOMWEB_SOURCES")
        if not self.pseudonym_key:
            raise ValueError(
                f"{PREFIX}UPS_WORKLIST needs {PREFIX}PSEUDONYM_KEY: it locks workitems"
            )
        return self

    @property
    def tasks_folder(self) -> Path:
        return self.home / "tasks"

    @property
    def specialists_folder(self) -> Path:
        return self.home / "specialists"

    @property
    def indexes_folder(self) -> Path:
        return self.home / "indexes"

    @property
    def examples_folder(self) -> Path:
        return self.home / "examples"

    @property
    def evaluations_folder(self) -> Path:
        return self.home / "evaluations"

    @property
    def calibration_folder(self) -> Path:
        return self.home / "calibration"


def read_settings(**given: Any) -> Settings:
    """Settings from the environment; arguments that are not None win over it.

    Raises Misconfigured with one line per setting that cannot be used; values are never shown.
    """
    known = {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(**{"_secrets_dir": _secrets_folder(), **known})
    except OSError as error:
        raise Misconfigured(f"{SECRETS}: cannot read {error.filename}: {error.strerror}") from None
    except ValidationError as error:
        problems = (p for p in error.errors() if p["type"] != "default_factory_not_called")
        lines = (_explain(problem["loc"], problem["msg"]) for problem in problems)
        raise Misconfigured("\n".join(lines)) from None


def unknown_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """Variables with our prefix that name no setting, each with the nearest that does."""
    known = [SECRETS, *(PREFIX + name.upper() for name in Settings.model_fields)]
    ours = (name for name in environment if name.upper().startswith(PREFIX))
    unknown = (n for n in ours if n.upper() not in known and not _KUBERNETES_LINK.fullmatch(n))
    return {name: _nearest(name.upper(), known) for name in sorted(unknown)}


def _secrets_folder() -> Path | None:
    """Where container engines put secrets, each in a file of its setting's name."""
    named = os.environ.get(SECRETS)
    folder = Path(named or "/run/secrets")
    if named and not folder.is_dir():
        raise Misconfigured(f"{SECRETS}: there is no folder {named}")
    return folder if folder.is_dir() else None


def _sqlite_in(home: Path) -> str:
    return f"sqlite:///{(home / 'gsco.db').absolute()}"


def _nearest(name: str, known: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def _explain(location: tuple[int | str, ...], message: str) -> str:
    text = message.removeprefix("Value error, ")
    return f"{PREFIX}{str(location[0]).upper()}: {text}" if location else text
