"""Stories of those who ask how good it is: evaluations and the specialists' cards."""

from pathlib import Path

import pytest
from serving import a_service, problem_of


@pytest.fixture
def results(home: Path) -> Path:
    """What an evaluation leaves behind."""
    folder = home / "evaluations" / "cxr-test"
    (folder / "plots").mkdir(parents=True)
    (folder / "table.md").write_text("# cxr-pneumonia\n", "utf-8")
    (folder / "plots" / "roc.svg").write_text("<svg/>", "utf-8")
    (folder / "cases.jsonl").write_text('{"id": "patient"}\n', "utf-8")
    (folder / "report.html").write_text("<p>", "utf-8")
    return folder


async def test_tables_and_plots_are_listed_and_read(home: Path, results: Path) -> None:
    async with a_service(home) as service:
        listed = await service.client.get("/v1/evaluations")
        table = await service.client.get("/v1/evaluations/cxr-test/table.md")
        plot = await service.client.get("/v1/evaluations/cxr-test/plots/roc.svg")

    found = {"name": results.name, "files": ["table.md", "plots/roc.svg"]}
    assert listed.json() == {"evaluations": [found]}
    assert table.text == "# cxr-pneumonia\n"
    assert plot.headers["content-type"] == "image/svg+xml"
    assert "sandbox" in plot.headers["content-security-policy"]


@pytest.mark.parametrize(
    "file",
    ["cases.jsonl", "report.html", "plots/../cases.jsonl", "..%2Ftable.md", "%2Fetc%2Fpasswd"],
)
async def test_nothing_else_of_the_folder_is_shown(home: Path, results: Path, file: str) -> None:
    async with a_service(home) as service:
        reply = await service.client.get(f"/v1/evaluations/{results.name}/{file}")

    assert problem_of(reply) in {"not-found", "no-such-address"}


async def test_links_lead_nowhere(home: Path, results: Path, tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere"
    (secret / "plots").mkdir(parents=True)
    (secret / "table.md").write_text("secret", "utf-8")
    (secret / "plots" / "x.svg").write_text("secret", "utf-8")
    (home / "evaluations" / "linked").symlink_to(secret)
    (results / "table.md").unlink()
    (results / "table.md").symlink_to(secret / "table.md")
    (results / "plots" / "roc.svg").unlink()
    (results / "plots").rmdir()
    (results / "plots").symlink_to(secret / "plots")
    async with a_service(home) as service:
        listed = await service.client.get("/v1/evaluations")

    assert listed.json() == {"evaluations": []}


async def test_a_specialist_that_is_not_there_has_no_card(home: Path) -> None:
    async with a_service(home) as service:
        await service.settled()
        of_no_folder = await service.client.get("/v1/specialists/cxr-pneumonia/resnet18")
        of_no_name = await service.client.get("/v1/specialists/cxr-pneumonia/..%2Fx")

    assert problem_of(of_no_folder) == "not-found"
    assert problem_of(of_no_name) in {"not-found", "no-such-address"}
