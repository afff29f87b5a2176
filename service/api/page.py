"""The page: the files of `service/web`, read once, under a policy that lets nothing else in."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from service.api.access import PUBLIC
from service.api.dependencies import ServingDep
from service.errors import IssuerUnavailable, NotFound
from service.identity.sign_in import SignIn

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for again each time, and answered 304
}

router = APIRouter(include_in_schema=False, dependencies=[PUBLIC])


@dataclass(frozen=True, slots=True)
class PageFile:
    content: bytes
    media_type: str
    sha256: str

    def tag(self, policy: str) -> str:
        """Another policy is another tag: browsers keep the old one with a page that is 304."""
        return f'"{hashlib.sha256(f"{self.sha256} {policy}".encode()).hexdigest()[:32]}"'


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request, serving: ServingDep) -> Response:
    """The page itself; where people sign in at an issuer, it may fetch their tokens there."""
    return _respond(request, "index.html", await _policy(serving.sign_in))


@router.api_route("/web/{name}", methods=["GET", "HEAD"])
async def page_file(name: str, request: Request) -> Response:
    """A script, style or picture of the page."""
    return _respond(request, name)


async def _policy(sign_in: SignIn | None) -> str:
    if sign_in is None:
        return POLICY
    try:
        origin = (await sign_in.endpoints()).token_origin
    except IssuerUnavailable:
        return POLICY
    return POLICY.replace("connect-src 'self'", f"connect-src 'self' {origin}")


def _respond(request: Request, name: str, policy: str = POLICY) -> Response:
    file = page_files().get(name)
    if file is None:
        raise NotFound(f"the page has no file {name[:64]!r}")
    headers = {**HEADERS, "Content-Security-Policy": policy, "ETag": file.tag(policy)}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


@cache
def page_files() -> dict[str, PageFile]:
    """Every file of the page by its name."""
    return {
        entry.name: _read(entry.name, entry.read_bytes())
        for entry in files("service").joinpath("web").iterdir()
        if entry.name.rpartition(".")[2] in MEDIA_TYPES
    }


def _read(name: str, content: bytes) -> PageFile:
    kind = MEDIA_TYPES[name.rpartition(".")[2]]
    return PageFile(content, kind, hashlib.sha256(content).hexdigest())
