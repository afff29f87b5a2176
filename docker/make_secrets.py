"""Makes the secrets that compose.yaml mounts, each once: docker/secrets, one file each.

What exists is left as it is: a new password in a file does not change the database's.
"""

import base64
import json
import secrets
from pathlib import Path

FOLDER = Path(__file__).with_name("secrets")


def main() -> None:
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    password = _kept("postgres_password", secrets.token_hex(24))
    _kept("gsco_database_url", f"postgresql://gsco:{password}@postgres/gsco")
    _kept("gsco_pseudonym_key", secrets.token_hex(32))
    _kept("gsco_webhook_secret", "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
    _kept("grafana_password", secrets.token_hex(12))
    _kept("orthanc_users", json.dumps({"RegisteredUsers": {"gsco": secrets.token_hex(12)}}))


def _kept(name: str, fresh: str) -> str:
    """The secret of that name, made if need be. Containers read it under an account of their own,
    hence the mode; on this machine nobody else gets into the folder."""
    path = FOLDER / name
    if not path.exists():
        path.write_text(fresh)
        path.chmod(0o444)
    return path.read_text()


if __name__ == "__main__":
    main()
