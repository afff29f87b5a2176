"""Stories of those who install the chart: rendered by Helm, held against Kubernetes' schemas."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import unknown_variables

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "gsco"
KUBERNETES = "1.33"
EVERYTHING = {"panel": {"enabled": True}, "monitoring": {"enabled": True}}
CUSTOM = {"RayService", "ServiceMonitor"}  # of operators: Kubernetes has no schema of theirs

# In processes of their own: Go's runtime sometimes ends one in which much else has run.
RENDER = """
import json, sys, helm_python as helm
chart = helm.Chart.load(sys.argv[1])
files = chart.render(json.loads(sys.argv[2]), name="gsco", namespace="radiology")
print(json.dumps(dict(files)))
"""
LINT = """
import json, sys, helm_python as helm
print(json.dumps(helm.lint(sys.argv[1], json.loads(sys.argv[2]), strict=True)))
"""
VALIDATE = """
import json, sys, helm_python as helm
try:
    helm.Chart.load(sys.argv[1]).validate_schema(json.loads(sys.argv[2]))
except helm.HelmError:
    sys.exit(3)
"""
REFUSED = 3

Object = dict[str, Any]


def helm(program: str, values: object) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-c", program, str(CHART), json.dumps(values))
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def rendered(values: dict[str, Any] | None = None) -> list[Object]:
    files = json.loads(helm(RENDER, values).stdout)
    return [one for text in files.values() for one in yaml.safe_load_all(text) if one]


def only(objects: list[Object], kind: str, suffix: str = "") -> Object:
    (found,) = (
        o for o in objects if o["kind"] == kind and o["metadata"]["name"] == f"gsco{suffix}"
    )
    return found


def pods(objects: list[Object]) -> Iterator[Object]:
    for one in objects:
        if one["kind"] in {"Deployment", "Job"}:
            yield one["spec"]["template"]
        if one["kind"] == "RayService":
            cluster = one["spec"]["rayClusterConfig"]
            groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
            yield from (group["template"] for group in groups)


def environment(pod: Object) -> dict[str, str]:
    return {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"]}


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_helm_finds_nothing_to_object_to() -> None:
    report = json.loads(helm(LINT, EVERYTHING).stdout)

    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


@pytest.mark.parametrize("values", [None, EVERYTHING, {"generalist": {"engine": "embedded"}}])
def test_every_object_is_one_that_kubernetes_knows(values: dict[str, Any] | None) -> None:
    objects = rendered(values)

    for one in objects:
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
    for pod in pods(objects):
        named = {"metadata": {"name": "a-pod", **pod["metadata"]}, "spec": pod["spec"]}
        whole = {"apiVersion": "v1", "kind": "Pod", **named}
        kubernetes_validate.validate(whole, KUBERNETES, strict=True)


def test_the_chart_has_what_a_platform_team_looks_for() -> None:
    kinds = {one["kind"] for one in rendered(EVERYTHING)}

    assert kinds == {
        *("Deployment", "Job", "Service", "PersistentVolumeClaim", "HorizontalPodAutoscaler"),
        *("PodDisruptionBudget", "NetworkPolicy", "RayService", "ServiceMonitor"),
    }


def test_no_pod_may_be_root_or_write_outside_its_volumes() -> None:
    for pod in pods(rendered(EVERYTHING)):
        (container,) = pod["spec"]["containers"]

        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


def test_secrets_are_files_and_every_variable_is_a_setting() -> None:
    objects = rendered({**EVERYTHING, "settings": {"LOG_LEVEL": "debug", "JOB_WORKERS": 8}})
    variables = environment(only(objects, "Deployment")["spec"]["template"])

    assert unknown_variables(variables) == {}
    assert variables["GSCO_AUTHENTICATION"] == "true"
    assert variables["GSCO_JOB_WORKERS"] == "8"
    assert not any(word in json.dumps(objects) for word in ("secretKeyRef", "DATABASE_URL"))


def test_tables_are_migrated_before_the_new_pods_come() -> None:
    job = only(rendered(), "Job", "-migrations")

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["db", "upgrade"]


def test_the_autoscaler_alone_says_how_many() -> None:
    scaled, fixed = rendered(), rendered({"autoscaling": {"enabled": False}, "replicas": 3})

    assert "replicas" not in only(scaled, "Deployment")["spec"]
    assert only(fixed, "Deployment")["spec"]["replicas"] == 3
    assert not [one for one in fixed if one["kind"] == "HorizontalPodAutoscaler"]


def test_selectors_find_the_services_pods_and_no_others() -> None:
    objects = rendered(EVERYTHING)
    wanted = [
        only(objects, "Service")["spec"]["selector"],
        only(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(objects, "Deployment")["spec"]["selector"]["matchLabels"],
    ]

    for selector in wanted:
        found = [pod for pod in pods(objects) if selects(selector, pod["metadata"]["labels"])]
        assert found == [only(objects, "Deployment")["spec"]["template"]]


def test_the_service_asks_the_panel_where_there_is_one() -> None:
    with_panel = environment(only(rendered(EVERYTHING), "Deployment")["spec"]["template"])
    without = environment(only(rendered(), "Deployment")["spec"]["template"])

    assert with_panel["GSCO_SPECIALISTS_URL"] == "http://gsco-panel-serve-svc:8000"
    assert "GSCO_SPECIALISTS_URL" not in without


def test_only_the_service_reaches_the_panels_port() -> None:
    objects = rendered(EVERYTHING)
    policy = only(objects, "NetworkPolicy", "-panel")["spec"]
    service = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]

    assert all(
        selects(policy["podSelector"]["matchLabels"], pod["metadata"]["labels"])
        for pod in pods([only(objects, "RayService", "-panel")])
    )
    (asking,) = (rule for rule in policy["ingress"] if "ports" in rule)
    assert asking["ports"] == [{"port": 8000}]
    assert all(selects(one["podSelector"]["matchLabels"], service) for one in asking["from"])


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": "two"},
        {"replica": 2},
        {"secretName": ""},
        {"generalist": {"engine": "gpt"}},
        {"settings": {"DATABASE_URL": "postgresql://a:b@c/d"}},
        {"settings": {"PSEUDONYM_KEY": "in the clear"}},
    ],
)
def test_values_that_cannot_be_meant_are_refused(values: dict[str, Any]) -> None:
    assert helm(VALIDATE, values).returncode == REFUSED


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own code
def test_serve_understands_the_configurations_of_the_panel() -> None:
    from ray.serve.schema import ServeDeploySchema

    from specialists.serve import PANEL, SEGMENTATION, plan

    chart = only(rendered(EVERYTHING), "RayService", "-panel")["spec"]["serveConfigV2"]
    plain = (CHART.parents[1] / "ray" / "specialists.yaml").read_text("utf-8")

    for text in (chart, plain):
        (application,) = ServeDeploySchema(**yaml.safe_load(text)).applications
        assert plan(application.args).gpus * (len(PANEL) + 1) <= 1
        assert {d.name for d in application.deployments} <= {*PANEL, SEGMENTATION, "panel"}
