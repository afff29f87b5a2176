"""Who asks, and what they may do."""

import os
import pwd
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

LONGEST_SUBJECT = 255
"""Characters of a caller's name at its issuer (OpenID Connect Core 1.0, section 2)."""


class Scope(StrEnum):
    """What a route asks of its caller; no scope holds another."""

    READ = "read"  # results, tasks, specialists, reference cases
    SUBMIT = "submit"  # images, to be diagnosed
    CURATE = "curate"  # reviews, tasks, reference cases
    ADMIN = "admin"  # what concerns the service itself
    METRICS = "metrics"  # figures, for Prometheus


class Role(StrEnum):
    """What a person is, as an issuer says it."""

    READER = "reader"
    SUBMITTER = "submitter"
    CURATOR = "curator"
    ADMIN = "admin"


SCOPES_OF: Mapping[Role, frozenset[Scope]] = {
    Role.READER: frozenset({Scope.READ}),
    Role.SUBMITTER: frozenset({Scope.READ, Scope.SUBMIT}),
    Role.CURATOR: frozenset({Scope.READ, Scope.SUBMIT, Scope.CURATE}),
    Role.ADMIN: frozenset(Scope),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `name` is `key:ID`, `user:SUBJECT`, `local:ACCOUNT`, `ae:TITLE` or `anonymous`.

    `rate` is how much this caller may ask, such as `600/minute`; None where nothing limits it.
    """

    name: str
    scopes: frozenset[Scope]
    rate: str | None = None


ANONYMOUS = Caller("anonymous", frozenset(Scope))
"""Everybody, where authentication is off."""

NOBODY = Caller("anonymous", frozenset())
"""Everybody, at an address that is open to all: who it is has not been asked."""


def scopes_of(roles: Iterable[Role]) -> frozenset[Scope]:
    """Everything that any of the roles may do."""
    return frozenset[Scope]().union(*(SCOPES_OF[role] for role in roles))


def local_name() -> str:
    """Who works at this machine's command line: the operating system's account."""
    number = os.geteuid()
    try:
        return f"local:{pwd.getpwuid(number).pw_name}"
    except KeyError:  # containers run as numbers that no account has
        return f"local:{number}"
