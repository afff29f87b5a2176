"""Bearer tokens of an OpenID Connect issuer (RFC 7519, RFC 9068): who they speak of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt

from service.errors import Unauthenticated
from service.identity.caller import LONGEST_SUBJECT, Caller, Role, scopes_of
from service.identity.issuer import SigningKeys

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""What may be allowed: signatures that only the issuer can make. `none` and HS* never are."""

LEEWAY_SECONDS = 30
LONGEST_TOKEN = 16 * 1024
REQUIRED = ("exp", "iss", "aud", "sub")
_SENTENCES: Mapping[type[Exception], str] = {
    jwt.ExpiredSignatureError: "The token has expired: ask its issuer for another.",
    jwt.ImmatureSignatureError: "The token is not valid yet: do the clocks agree?",
    jwt.InvalidAudienceError: "The token is meant for another service.",
    jwt.InvalidIssuerError: "The token is of another issuer.",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """Which tokens hold, and where in them a caller's roles are.

    `roles_claim` may be a path, as in Keycloak's `realm_access.roles`. `roles` names the role
    behind each of the issuer's words; without any, its words are the roles themselves. Without
    `jwks_url` the issuer's keys are found by discovery.
    """

    issuer: str
    audience: str
    algorithms: Sequence[str] = ("RS256", "ES256")
    roles_claim: str = "roles"
    roles: Mapping[str, Role] = field(default_factory=dict)
    jwks_url: str = ""


class Tokens:
    """Tells who a token speaks of."""

    def __init__(self, rules: Rules, keys: SigningKeys) -> None:
        self._rules = rules
        self._keys = keys

    async def caller(self, token: str) -> Caller:
        """Raises Unauthenticated with the reason, IssuerUnavailable where nobody can tell."""
        header = self._header(token)
        if header.get("alg") not in self._rules.algorithms:
            raise Unauthenticated("The token is signed in a way that is not allowed here.")
        key = await self._keys.find(header.get("kid"))
        claims = self._claims(token, key)
        return Caller(_name(claims), scopes_of(self._roles(claims)))

    def _header(self, token: str) -> dict[str, Any]:
        """What the token says of its own signature: to be believed only once it is checked."""
        try:
            if len(token) > LONGEST_TOKEN:
                raise jwt.DecodeError
            return jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):  # a header may be nested without end
            raise Unauthenticated("The credential is neither an API key nor a token.") from None

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        rules = self._rules
        try:
            return jwt.decode(
                token,
                key,
                algorithms=list(rules.algorithms),
                audience=rules.audience,
                issuer=rules.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": list(REQUIRED), "enforce_minimum_key_length": True},
            )
        except jwt.PyJWTError as error:
            sentence = _SENTENCES.get(type(error), "The token does not hold.")
            raise Unauthenticated(sentence) from None

    def _roles(self, claims: Mapping[str, Any]) -> set[Role]:
        """The roles that the claim names; words that mean none are left out."""
        words = _words(_at(claims, self._rules.roles_claim))
        known = self._rules.roles or {role.value: role for role in Role}
        return {known[word] for word in words if word in known}


def _name(claims: Mapping[str, Any]) -> str:
    subject = claims["sub"]
    if not (subject.isprintable() and 0 < len(subject) <= LONGEST_SUBJECT):
        raise Unauthenticated("The token's subject is no name.")
    return f"user:{subject}"


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, which may hold dots itself, or by a path of names."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _words(value: Any) -> list[str]:
    """A list of words, or words in one string as in the claim `scope` (RFC 8693 section 4.2)."""
    if isinstance(value, str):
        return value.split()
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []
