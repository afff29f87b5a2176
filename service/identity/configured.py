"""What the settings say of identity, checked before anything starts."""

from collections.abc import Mapping, Sequence

from service.errors import Misconfigured
from service.identity.caller import Role
from service.identity.issuer import is_loopback, safe_url
from service.identity.sign_in import PublicClient
from service.identity.tokens import ALGORITHMS, Rules
from service.settings import PREFIX, Settings


def refuse_exposure(settings: Settings, host: str) -> None:
    """Raises Misconfigured where the service would answer strangers without asking who they are."""
    if settings.authentication or settings.allow_anonymous or is_loopback(host):
        return
    raise Misconfigured(
        f"refusing to listen on {host or 'every address'} without authentication: "
        f"set {PREFIX}AUTHENTICATION=true (`gsco keys create` makes keys), "
        f"or {PREFIX}ALLOW_ANONYMOUS=true behind a gateway of your own"
    )


def token_rules(settings: Settings) -> Rules | None:
    """Which tokens hold, None where no issuer is set; raises Misconfigured."""
    if not settings.oidc_issuer:
        return None
    safe_url(settings.oidc_issuer)
    if settings.oidc_jwks_url:
        safe_url(settings.oidc_jwks_url)
    return Rules(
        settings.oidc_issuer,
        settings.oidc_audience,
        _algorithms(settings.oidc_algorithms),
        settings.oidc_roles_claim,
        _roles(settings.oidc_roles),
        settings.oidc_jwks_url,
    )


def public_client(settings: Settings) -> PublicClient | None:
    """The page as a client of the issuer, None where people do not sign in there."""
    if not settings.oidc_client_id:
        return None
    return PublicClient(settings.oidc_issuer, settings.oidc_client_id, settings.oidc_scopes)


def _algorithms(names: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in ALGORITHMS]
    if unknown or not names:
        allowed = ", ".join(ALGORITHMS)
        raise Misconfigured(f"{PREFIX}OIDC_ALGORITHMS: {unknown[:1]} is not one of {allowed}")
    return tuple(names)


def _roles(pairs: Sequence[str]) -> Mapping[str, Role]:
    """`WORD=role` each; the word may hold anything but a semicolon."""
    roles = {}
    for pair in pairs:
        word, _, role = pair.rpartition("=")
        if not word or role not in set(Role):
            known = ", ".join(Role)
            raise Misconfigured(f"{PREFIX}OIDC_ROLES: {pair[:80]!r} is not WORD=role of {known}")
        roles[word] = Role(role)
    return roles
