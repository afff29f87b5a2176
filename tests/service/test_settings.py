"""Stories of those who configure the service."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.errors import Misconfigured
from service.settings import NANO_GENERALIST, Settings, read_settings, unknown_variables


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in unknown_variables() | {f"GSCO_{n.upper()}": "" for n in Settings.model_fields}:
        monkeypatch.delenv(name, raising=False)


def test_works_without_any_setting() -> None:
    settings = read_settings()

    assert settings.home == Path(".gsco")
    assert settings.database_url == f"sqlite:///{Path('.gsco/gsco.db').absolute()}"
    assert settings.generalist_path == NANO_GENERALIST
    assert settings.tasks_folder == Path(".gsco/tasks")


def test_the_environment_counts_and_an_argument_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GSCO_HOME", str(tmp_path))
    monkeypatch.setenv("GSCO_PORT", "9000")
    monkeypatch.setenv("GSCO_LOG_LEVEL", "DEBUG")

    settings = read_settings(port=9001, host=None)

    assert (settings.home, settings.port, settings.log_level) == (tmp_path, 9001, "debug")
    assert settings.database_url.endswith("/gsco.db")


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSCO_DATABASE_URL", "")
    monkeypatch.setenv("GSCO_THREADS", "")

    assert read_settings().database_url.startswith("sqlite:")
    assert read_settings().threads is None


def test_peers_titles_and_sources_are_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GSCO_DICOM_PORT", "11112")
    monkeypatch.setenv("GSCO_DICOM_PEERS", "ORTHANC=10.0.0.5; PACS = 10.0.0.6")
    monkeypatch.setenv("GSCO_DICOM_AE_TITLES", "GSCO; CXR=cxr-pneumonia")
    monkeypatch.setenv(
        "GSCO_DICOMWEB_SOURCES",
        '[{"name": "pacs", "url": "https://pacs.example/dicom-web", "password": "a;b=c"}]',
    )

    settings = read_settings()

    peers = {title: str(address) for title, address in settings.dicom_peers.items()}
    assert peers == {"ORTHANC": "10.0.0.5", "PACS": "10.0.0.6"}
    assert settings.dicom_ae_titles == {"GSCO": "", "CXR": "cxr-pneumonia"}
    assert settings.dicomweb_sources[0].password.get_secret_value() == "a;b=c"
    assert "a;b=c" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GSCO_DICOMWEB_SOURCES", "not JSON"),
        ("GSCO_DICOMWEB_SOURCES", '[{"name": "a", "url": "file:///etc/passwd"}]'),
        ("GSCO_DICOMWEB_SOURCES", '[{"name": "a", "url": "http://user:secret@host/"}]'),
        ("GSCO_DICOMWEB_SOURCES", '[{"name": "a", "url": "http://h", "verify": false}]'),
        ("GSCO_DICOM_PEERS", "ORTHANC=some.host"),
        ("GSCO_DICOM_PEERS", "AN_AE_TITLE_TOO_LONG=10.0.0.5"),
        ("GSCO_DICOM_PORT", "11112"),
    ],
)
def test_peers_that_cannot_be_used_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(Misconfigured, match=name) as caught:
        read_settings()

    assert "secret" not in str(caught.value)


def test_two_sources_have_two_names() -> None:
    twice = [{"name": "pacs", "url": "http://a"}, {"name": "pacs", "url": "http://b"}]

    with pytest.raises(Misconfigured, match="two sources have the same name"):
        read_settings(dicomweb_sources=twice)


def test_vllm_needs_an_address_and_a_model() -> None:
    with pytest.raises(Misconfigured, match="'vllm' needs GSCO_GENERALIST_URL"):
        read_settings(generalist_engine="vllm")
    with pytest.raises(Misconfigured, match="'vllm' needs GSCO_GENERALIST_MODEL"):
        read_settings(generalist_engine="vllm", generalist_url="http://localhost:8001/v1")


def test_an_adapter_beside_vllm_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="vLLM serves an adapter itself"):
        read_settings(
            generalist_engine="vllm",
            generalist_url="http://localhost:8001/v1",
            generalist_model="site",
            generalist_adapter=tmp_path,
        )


def test_every_wrong_setting_is_named_and_no_value_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSCO_PORT", "secret")
    monkeypatch.setenv("GSCO_NEIGHBOURS", "0")

    with pytest.raises(Misconfigured) as caught:
        read_settings()

    assert str(caught.value).splitlines()[0].startswith("GSCO_PORT: ")
    assert str(caught.value).splitlines()[1].startswith("GSCO_NEIGHBOURS: ")
    assert "secret" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    settings = read_settings(
        generalist_api_key="s3cret",
        pseudonym_key="s3cret",
        database_url="postgresql://a:s3cret@b/c",
    )

    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


def test_a_secret_is_read_from_a_file_of_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gsco_database_url").write_text("postgresql://gsco:s3cret@db/gsco\n")
    (tmp_path / "gsco_pseudonym_key").write_text("from a file")
    (tmp_path / "somebody_elses").write_text("left alone")
    monkeypatch.setenv("GSCO_SECRETS_FOLDER", str(tmp_path))
    monkeypatch.setenv("GSCO_PSEUDONYM_KEY", "the environment wins")

    settings = read_settings()

    assert settings.database_url == "postgresql://gsco:s3cret@db/gsco"
    assert settings.pseudonym_key.get_secret_value() == "the environment wins"
    assert unknown_variables({"GSCO_SECRETS_FOLDER": "/run/secrets"}) == {}


def test_a_secrets_folder_that_is_not_there_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GSCO_SECRETS_FOLDER", str(tmp_path / "nowhere"))

    with pytest.raises(Misconfigured, match="GSCO_SECRETS_FOLDER: there is no folder"):
        read_settings()


def test_the_panels_url_is_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSCO_SPECIALISTS_URL", "file:///etc/passwd")

    with pytest.raises(Misconfigured, match="GSCO_SPECIALISTS_URL"):
        read_settings()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        read_settings().port = 1  # type: ignore[misc]


def test_a_misspelt_variable_is_noticed() -> None:
    environment = {"GSCO_NIEGHBOURS": "5", "GSCO_PORT": "8000", "PATH": "", "GSCO_XYZZY": "1"}

    assert unknown_variables(environment) == {
        "GSCO_NIEGHBOURS": "GSCO_NEIGHBOURS",
        "GSCO_XYZZY": None,
    }


def test_what_kubernetes_sets_for_a_service_called_gsco_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kubernetes = {
        "GSCO_SERVICE_HOST": "10.0.0.1",
        "GSCO_SERVICE_PORT": "8000",
        "GSCO_SERVICE_PORT_HTTP": "8000",
        "GSCO_PORT": "tcp://10.0.0.1:8000",
        "GSCO_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "GSCO_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    for name, value in kubernetes.items():
        monkeypatch.setenv(name, value)

    assert read_settings().port == 8000
    assert unknown_variables(kubernetes) == {}


def test_what_may_be_retrieved_is_a_list_with_semicolons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSCO_RETRIEVAL_LICENCES", "CC0-1.0; CC BY 4.0, with notice ;")
    monkeypatch.setenv("GSCO_RETRIEVAL_SINCE", "2026-01-31T00:00:00Z")
    settings = read_settings()
    assert settings.retrieval_licences == ("CC0-1.0", "CC BY 4.0, with notice")
    assert settings.retrieval_sources == ()
    assert settings.retrieval_since == datetime(2026, 1, 31, tzinfo=UTC)
    monkeypatch.setenv("GSCO_RETRIEVAL_SINCE", "2026-01-31T00:00:00")
    with pytest.raises(Misconfigured, match="GSCO_RETRIEVAL_SINCE"):
        read_settings()
