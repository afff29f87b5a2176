"""An OpenID Connect issuer on this machine: signs tokens, publishes its keys, counts who asks.

It signs everybody in without a question, by an authorization code with PKCE (RFC 7636).
"""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "gsco"
DISCOVERY, KEYS = "/.well-known/openid-configuration", "/keys"
AUTHORIZE, TOKEN = "/authorize", "/token"
CLIENT = "gsco-page"


@dataclass
class Issuer:
    """Everything about it can be changed while it runs; `asked` are the addresses it was asked."""

    url: str = ""
    signing: dict[str, Any] = field(default_factory=lambda: {"first": rsa_key(0)})
    documents: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    asked: list[str] = field(default_factory=list)
    roles: tuple[str, ...] = ("submitter",)
    returns: dict[str, str] = field(default_factory=dict)  # in place of what it would send back
    id_claims: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def token(
        self,
        *roles: str,
        by: str = "first",
        algorithm: str = "RS256",
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token for the service, good for a minute; claims that are None are left out."""
        now = int(time.time())
        said = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "dr-house",
            "iat": now,
            "exp": now + 60,
            "roles": list(roles),
            **claims,
        }
        payload = {name: value for name, value in said.items() if value is not None}
        headers = {"kid": by, **(header or {})}
        return jwt.encode(payload, self.signing[by], algorithm, headers)

    def answer(self, path: str) -> Any:
        self.asked.append(path)
        if path in self.documents:
            return self.documents[path]
        if path == DISCOVERY:
            return {
                "issuer": self.url,
                "jwks_uri": self.url + KEYS,
                "authorization_endpoint": self.url + AUTHORIZE,
                "token_endpoint": self.url + TOKEN,
            }
        return {"keys": [public(id, key) for id, key in self.signing.items()]}

    def authorize(self, asked: dict[str, str]) -> str:
        """Where the browser goes next: back to the page, with a code."""
        assert (asked["client_id"], asked["response_type"]) == (CLIENT, "code")
        assert (asked["code_challenge_method"], asked["scope"]) == ("S256", "openid")
        code = secrets.token_urlsafe()
        self.codes[code] = asked
        back = {"code": code, "state": asked["state"], **self.returns}
        return f"{asked['redirect_uri']}?{urlencode(back)}"

    def exchange(self, given: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """The tokens of a code, once, for who knows the verifier behind its challenge."""
        asked = self.codes.pop(given.get("code", ""), None)
        digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if asked is None or asked["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}
        for name in ("client_id", "redirect_uri"):
            assert given[name] == asked[name]
        said = {"aud": CLIENT, "nonce": asked["nonce"], **self.id_claims}
        access = self.token(*self.roles)
        tokens = {"token_type": "Bearer", "access_token": access, "id_token": self.token(**said)}
        return 200, {**tokens, **self.tokens}


@contextmanager
def an_issuer() -> Iterator[Issuer]:
    """An issuer that answers until this is left."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if urlsplit(self.path).path == AUTHORIZE:
                self.send_response(302)
                asked = dict(parse_qsl(urlsplit(self.path).query))
                self.send_header("Location", issuer.authorize(asked))
                self.end_headers()
                return
            body = issuer.answer(self.path)
            self.send_response(issuer.status)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, tokens = issuer.exchange(dict(parse_qsl(body)))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Access-Control-Allow-Origin", self.headers["Origin"])
            self.end_headers()
            self.wfile.write(json.dumps(tokens).encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@cache
def rsa_key(number: int, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key that is the same in all of a run: to make one takes a moment."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public(id: str, key: Any) -> dict[str, Any]:
    """What an issuer publishes of a key."""
    kind = jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else None
    written = (kind or jwt.algorithms.RSAAlgorithm).to_jwk(key.public_key(), as_dict=True)
    return {**written, "kid": id, "use": "sig"}
