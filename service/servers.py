"""Servers that the settings name: where images are, where results go, where work is listed."""

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    SecretStr,
    StringConstraints,
    model_validator,
)

_URL = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"

AeTitle = Annotated[str, StringConstraints(pattern=r"^[ -\[\]-~]{1,16}$", strip_whitespace=True)]


class DicomwebServer(BaseModel):
    """A server, and who we are there: a user with a password, a token, or nobody."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    url: str = Field(pattern=_URL, repr=False)
    user: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    timeout_seconds: PositiveFloat = 60.0


class DicomwebSource(DicomwebServer):
    """A PACS that images are fetched from; `name` is what callers know it by."""


class PacsTarget(DicomwebServer):
    """A PACS that results go to: by STOW-RS to its `url`, or by C-STORE to its `ae_title`.

    `objects` are the sorts that it gets; a key object only where a diagnosis needs review.
    `senders` are the AE titles and sources whose images it is told of; none: everybody's. What
    goes `outside` names nobody.
    """

    url: str = Field("", pattern=f"^$|{_URL}", repr=False)
    ae_title: AeTitle | None = None
    host: str = ""
    port: int = Field(104, ge=1, le=65535)
    calling_ae_title: AeTitle = "GSCO"
    objects: tuple[Literal["sr", "capture", "segmentation", "key-object"], ...] = Field(
        ("sr", "capture"), min_length=1
    )
    senders: tuple[str, ...] = ()
    outside: bool = False

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        if bool(self.url) == bool(self.ae_title) or bool(self.host) != bool(self.ae_title):
            raise ValueError(f"target {self.name!r} needs either a url, or an ae_title and a host")
        return self


class UpsWorklist(DicomwebServer):
    """A worklist (UPS-RS) whose workitems are performed; `source` has the images that they name.

    `query` restricts which are ours, such as {"WorklistLabel": "GSCO"}. Without a `task`, the
    tasks' rules choose.
    """

    source: str
    task: str = ""
    query: dict[str, str] = Field(default_factory=dict)
    poll_seconds: float = Field(10.0, ge=0.1)
