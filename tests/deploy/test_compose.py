"""Stories of those who start everything with one command; `make check` holds the file's schema."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import read_settings, unknown_variables

DOCKER = Path(__file__).parents[2] / "docker"
OURS = ("demonstration", "service", "service-gpu")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
    return document


def test_a_profile_starts_what_it_promises(compose: dict[str, Any]) -> None:
    def started(profile: str) -> set[str]:
        return {name for name, one in compose["services"].items() if profile in one["profiles"]}

    assert started("cpu") == {"postgres", "demonstration", "service"}
    assert started("gpu") == {"postgres", "service-gpu", "vllm"}
    assert started("pacs") == {"orthanc"}
    assert started("monitoring") == {"prometheus", "grafana"}


def test_nobody_outside_this_machine_reaches_a_port(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@pytest.mark.parametrize("name", OURS)
def test_our_containers_write_into_their_volumes_only(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]

    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_every_variable_of_ours_is_a_setting_and_callers_must_be_known(
    compose: dict[str, Any],
) -> None:
    for name in ("service", "service-gpu"):
        variables = compose["services"][name]["environment"]
        assert unknown_variables(variables) == {}
        assert variables["GSCO_AUTHENTICATION"] == "true"


def test_results_go_back_to_the_pacs_that_sent_the_image(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in compose["services"]["service"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    orthanc = json.loads(compose["configs"]["orthanc"]["content"])

    (target,) = settings.pacs_targets

    assert target.ae_title == orthanc["DicomAet"]
    assert set(target.senders) == set(settings.dicom_peers) == {target.ae_title}
    assert target.host in compose["services"]


def test_no_secret_stands_in_the_file(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            secret = re.search("PASSWORD|SECRET|_KEY|DATABASE_URL", name)
            assert not secret or value.startswith("/run/secrets/")


def test_the_secrets_are_made_once_and_kept(compose: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "make_secrets.py"
    script.write_text((DOCKER / "make_secrets.py").read_text("utf-8"))

    runpy.run_path(str(script), run_name="__main__")
    first = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    runpy.run_path(str(script), run_name="__main__")
    second = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    assert first == second
    assert set(first) == set(compose["secrets"]) - {"gsco_metrics_key"}  # `gsco keys` makes that
    assert first["postgres_password"] in first["gsco_database_url"]
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
