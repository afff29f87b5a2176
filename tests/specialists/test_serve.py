"""Stories of whoever starts the panel on Ray; that it answers is told in e2e/test_ray_panel.py."""

from dataclasses import replace
from pathlib import Path

import pytest

from specialists import wire
from specialists.catalogue import PANEL
from specialists.errors import UnknownBackbone
from specialists.segmentation.models import MODELS
from specialists.task import Label, Task

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Ray's own code
]


def test_arguments_of_the_command_line_are_texts() -> None:
    from specialists.serve import plan

    asked = plan(
        {"home": "/srv/gsco", "gpus": "0.1", "replicas": "2", "backbones": "vgg16,alexnet"}
    )

    assert asked.home == Path("/srv/gsco")
    assert (asked.gpus, asked.replicas) == (0.1, 2)
    assert asked.backbones == ("vgg16", "alexnet")
    assert plan({"home": "/srv/gsco"}).backbones == PANEL


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "home"),
        ({"home": "/srv", "gpu": "1"}, "gpu"),
        ({"home": "/srv", "gpus": "all"}, "gpus"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(arguments: dict[str, str], told: str) -> None:
    from specialists.serve import plan

    with pytest.raises(ValueError, match=told):
        plan(arguments)


def test_a_backbone_that_the_catalogue_does_not_have_is_refused() -> None:
    from specialists.serve import plan

    with pytest.raises(UnknownBackbone, match="lenet"):
        plan({"home": "/srv", "backbones": "lenet"})


async def test_those_whose_machines_are_away_are_named_as_the_panel_names_them(task: Task) -> None:
    from specialists.serve import Front

    outlined = replace(task, segment=Label("lesion"))

    panel = wire.read_panel(await Front({})._load(wire.question(outlined)), outlined)

    assert [one.specialist for one in panel.missing] == [*PANEL, *MODELS]
