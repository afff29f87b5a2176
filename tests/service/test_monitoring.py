"""What deploy/ asks for is there: every figure and label, and what to do about every alert."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from serving import a_service

from service.metrics import Metrics

ROOT = Path(__file__).parent.parent.parent
PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
OF_THE_SCRAPE = {"up": {"job", "instance"}}
EVERYWHERE = {"job", "instance", "le"}
OF_A_HISTOGRAM = ("_bucket", "_count", "_sum", "_created")

_METRIC = re.compile(r"\b(up|(?:gsco|process|python)_\w+)\b(?:\{([^}]*)\})?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"\b(?:by|on|without)\s*\(([^)]*)\)")


def expressions() -> dict[str, str]:
    """Every expression of the alerts and of the dashboard, by where it is."""
    return dict([*of_alerts(), *of_dashboard()])


def alerts() -> list[dict[str, object]]:
    document = yaml.safe_load((PROMETHEUS / "gsco-alerts.yaml").read_text("utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def of_alerts() -> Iterator[tuple[str, str]]:
    for rule in alerts():
        yield f"alert {rule['alert']}", str(rule["expr"])


def of_dashboard() -> Iterator[tuple[str, str]]:
    board = json.loads((GRAFANA / "gsco.json").read_text("utf-8"))
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']} {target['refId']}", target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]


def labels_of(metrics: Metrics) -> dict[str, set[str]]:
    """The labels of each of our figures, by the name that it is asked for."""
    found: dict[str, set[str]] = {}
    registry: CollectorRegistry = metrics._registry
    for collector, names in registry._collector_to_names.items():
        labels = set(getattr(collector, "_labelnames", ()))
        found |= dict.fromkeys(names, labels)
    return found


async def test_every_figure_that_is_asked_for_is_told(home: Path) -> None:
    async with a_service(home) as service:
        figures = await service.figures()

    families = list(text_string_to_metric_families(figures))
    told = {family.name + end for family in families for end in ("", "_total", *OF_A_HISTOGRAM)}
    for place, expression in expressions().items():
        asked = {name for name, _ in _METRIC.findall(expression)}
        assert asked, place
        assert asked <= told | set(OF_THE_SCRAPE), place


def test_every_label_that_is_asked_for_is_one_of_the_figures() -> None:
    known = labels_of(Metrics()) | OF_THE_SCRAPE
    for place, expression in expressions().items():
        named: set[str] = set()
        for metric, matchers in _METRIC.findall(expression):
            wanted = set(_LABEL.findall(re.sub(r'"[^"]*"', "", matchers)))
            labels = known[metric] if metric.startswith("gsco") else set()
            assert wanted <= labels | EVERYWHERE, place
            named |= labels
        grouped = {one.strip() for by in _GROUPING.findall(expression) for one in by.split(",")}
        assert grouped <= named | EVERYWHERE, place


def test_every_alert_says_how_grave_it_is_and_what_to_do() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    headings = {line.removeprefix("### ").strip() for line in page.splitlines()}
    for rule in alerts():
        name = str(rule["alert"])
        assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"}), name
        anchor = f"docs/operations.md#{name.lower()}"
        assert rule["annotations"]["runbook_url"] == anchor, name  # type: ignore[index]
        assert name in headings, name


def test_every_figure_of_ours_is_described() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    names = {name.removesuffix("_created") for name in labels_of(Metrics()) if "gsco" in name}
    bare = {re.sub(r"_(bucket|count|sum|info)$", "", name) for name in names}
    assert not [name for name in bare if name not in page]


def test_grafana_finds_its_datasource_and_its_dashboard() -> None:
    provisioning = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "gsco.yaml").read_text())[
        "providers"
    ]
    board = json.loads((GRAFANA / "gsco.json").read_text("utf-8"))
    ids = [panel["id"] for panel in board["panels"]]

    assert source["uid"] == board["templating"]["list"][0]["current"]["value"]
    assert provider["options"]["path"].startswith("/")
    assert len(set(ids)) == len(ids)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "gsco-alerts.yaml"),
        ("test", "rules", "gsco-alerts.test.yaml"),
    ],
)
def test_prometheus_takes_its_files_and_alerts_when_it_should(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
