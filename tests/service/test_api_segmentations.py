"""Stories of callers who ask where the segment of a task lies."""

from pathlib import Path

import httpx
import pytest
from builders import a_segmentation, png_bytes
from fakes import FakeSpecialists
from serving import Service, a_service, problem_of


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder whose task has a segment, and one whose task has none."""
    folder = tmp_path / "home" / "tasks"
    folder.mkdir(parents=True)
    text = 'kind = "single-label"\nmodality = "ultrasound"\nbody_part = "breast"\n'
    labels = 'labels = ["benign", "malignant"]\n'
    (folder / "busi.toml").write_text(f'name = "busi"\n{text}{labels}segment = "lesion"\n')
    (folder / "plain.toml").write_text(f'name = "plain"\n{text}{labels}')
    return tmp_path / "home"


async def ask(service: Service, task: str) -> httpx.Response:
    files = {"file": ("x.png", png_bytes())}
    return await service.client.post("/v1/segmentations", files=files, data={"task": task})


async def test_every_outline_comes_with_its_map(home: Path) -> None:
    panel = FakeSpecialists(segmentations=(a_segmentation(), a_segmentation("fpn", map=None)))
    async with a_service(home, specialists=panel) as service:
        reply = await ask(service, "busi")

    (outline,) = reply.json()["segmentations"]
    assert (outline["specialist"], outline["segment"]) == ("unet", "lesion")
    assert outline["map"] == [[0.9, 0.2], [0.1, 0.1]]
    assert outline["places"] == ["upper left"]
    assert service.store.saved == {}


async def test_a_task_without_a_segment_has_none_to_outline(home: Path) -> None:
    async with a_service(home) as service:
        reply = await ask(service, "plain")

    assert problem_of(reply) == "invalid-input"
    assert "has no segment" in reply.json()["detail"]
