"""Stories of those who ask where a specialist looked."""

from pathlib import Path

import numpy as np
import pytest
import torch

from service.demo import lesions
from service.demo.tasks import demo_tasks
from specialists import catalogue, gradcam, loader
from specialists.architectures import build
from specialists.catalogue import Scale
from specialists.errors import SpecialistUnavailable, UnknownBackbone, UnknownLabel
from specialists.loader import Manifest, Specialist
from specialists.overlay import enlarge, overlay, within
from specialists.pool import SpecialistPool
from specialists.prediction import Pixels
from specialists.task import Task

SHIPPED = Path(lesions.__file__).parent / "specialists"
BACKBONES = [(key, scale) for scale in Scale for key in catalogue.at_scale(scale)]


def a_specialist(key: str, scale: Scale, device: str) -> Specialist:
    """An untrained one; on the device "meta" it has shapes and no numbers, and takes no memory."""
    architecture = catalogue.find(key).at(scale)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(3)
        model = build(architecture, 2).eval()
    manifest = Manifest(
        task="light",
        kind="single-label",
        labels=("dark", "bright"),
        backbone=key,
        scale=scale,
        parameters=0,
        embedding_dimension=architecture.dimension,
        preprocessing=loader.preprocessing_of(architecture),
        recipe={},
        data_fingerprint="",
        validation={},
        temperature=1.0,
        licence="CC0-1.0",
    )
    return Specialist(manifest, model)


@pytest.mark.parametrize(("key", "scale"), BACKBONES)
def test_every_backbone_tells_places_apart(key: str, scale: Scale, pixels: Pixels) -> None:
    traced = gradcam.trace(a_specialist(key, scale, "meta"), pixels, label=1)

    channels, rows, columns = traced.activation.shape
    assert traced.gradient.shape == traced.activation.shape
    assert channels >= 12
    assert rows == columns
    assert rows >= 7


@pytest.mark.parametrize("key", catalogue.at_scale(Scale.NANO))
def test_heat_covers_the_image_from_0_to_1(key: str, pixels: Pixels) -> None:
    specialist = a_specialist(key, Scale.NANO, "cpu")

    maps = [gradcam.heat(specialist, pixels, label) for label in ("dark", "bright")]

    assert all(one.shape == pixels.shape[:2] and one.dtype == np.float32 for one in maps)
    assert all(one.min() >= 0 and one.max() <= 1 for one in maps)
    assert max(one.max() for one in maps) > 0.5


def test_tokens_lie_where_their_patches_are() -> None:
    """One bright patch in the last row changes the first layer there, and nowhere more."""
    specialist = a_specialist("vit-b16", Scale.NANO, "cpu")
    dark = np.zeros((64, 64, 3), np.uint8)
    lit = dark.copy()
    lit[56:64, 16:24] = 255  # row 7, column 2 of the 8 × 8 patches
    model = specialist.model.backbone
    model.blocks = torch.nn.Sequential(model.blocks[-1])  # nothing has mixed the tokens yet

    first = "blocks.0.norm1"
    before, after = (_at(specialist, image, first) for image in (dark, lit))

    change = (after - before).abs().sum(0)
    assert np.unravel_index(int(change.argmax()), change.shape) == (7, 2)


def _at(specialist: Specialist, pixels: Pixels, layer: str) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    backbone = specialist.model.backbone
    backbone.get_submodule(layer).register_forward_hook(lambda *call: seen.append(call[-1]))
    specialist.model(gradcam._prepare(specialist, pixels))
    return gradcam._as_map(seen[0][0].detach(), backbone)


def test_the_model_is_left_as_it_was(pixels: Pixels) -> None:
    specialist = a_specialist("resnet18", Scale.NANO, "cpu")
    before = {name: tensor.clone() for name, tensor in specialist.model.state_dict().items()}

    gradcam.heat(specialist, pixels, "bright")

    assert all(torch.equal(before[n], t) for n, t in specialist.model.state_dict().items())
    assert all(parameter.grad is None for parameter in specialist.model.parameters())
    assert all(parameter.requires_grad for parameter in specialist.model.parameters())
    assert not any(module.training for module in specialist.model.modules())
    assert not any(module._forward_hooks for module in specialist.model.modules())


def test_it_works_where_gradients_are_switched_off(pixels: Pixels) -> None:
    with torch.no_grad():
        heat = gradcam.heat(a_specialist("alexnet", Scale.NANO, "cpu"), pixels, "dark")

    assert heat.shape == pixels.shape[:2]


def test_without_a_label_the_most_probable_is_explained(pixels: Pixels) -> None:
    specialist = a_specialist("resnet18", Scale.NANO, "cpu")

    made = gradcam.explain(specialist, pixels)
    named = gradcam.explain(specialist, pixels, made.label)

    assert made.probability >= 0.5
    assert made.layer == "layer1"
    np.testing.assert_array_equal(made.grid, named.grid)


def test_an_unknown_label_is_named_with_those_there_are(pixels: Pixels) -> None:
    with pytest.raises(UnknownLabel, match="no label 'green'; known labels: dark, bright"):
        gradcam.heat(a_specialist("alexnet", Scale.NANO, "cpu"), pixels, "green")


def test_where_nothing_speaks_for_the_label_there_is_no_heat() -> None:
    assert not gradcam.scaled(torch.full((3, 3), -2.0)).any()


@pytest.mark.parametrize("key", ["vgg16", "densenet121", "vit-b16", "sam-vit-b16"])
def test_the_heat_falls_on_the_lesion_more_often_than_by_chance(key: str) -> None:
    """Chance is the lesions' share of the image, under 3 %; see docs/results/gradcam.md."""
    demo = next(demo for demo in demo_tasks() if demo.task.name == "phantom-cxr")
    phantoms = [one for one in demo.series(32, seed=11) if one.labels != ("normal",)]
    specialist = loader.load(SHIPPED / "phantom-cxr" / key, demo.task)

    truths = [lesions.mask(one) for one in phantoms]
    maps = [gradcam.heat(specialist, one.rgb, one.labels[0]) for one in phantoms]

    hits = np.mean([truth.flat[one.argmax()] for one, truth in zip(maps, truths, strict=True)])
    chance = np.mean([truth.mean() for truth in truths])
    assert chance < 0.03
    assert hits > 4 * chance


def test_a_healthy_phantom_has_no_lesion() -> None:
    demo = demo_tasks()[0]

    healthy = next(one for one in demo.series(8, seed=1) if one.labels == ("normal",))

    assert not lesions.mask(healthy).any()


def test_cold_places_of_an_overlay_are_the_image_and_hot_ones_are_coloured(pixels: Pixels) -> None:
    heat = np.zeros(pixels.shape[:2], np.float32)
    heat[10, 20] = 1

    covered = overlay(pixels, heat)

    changed = (covered != pixels).any(axis=-1)
    assert changed[10, 20]
    assert changed.sum() == 1


def test_an_overlay_of_another_size_is_refused(pixels: Pixels) -> None:
    with pytest.raises(ValueError, match="does not cover"):
        overlay(pixels, np.zeros((2, 2), np.float32))


def test_a_map_is_enlarged_between_the_centres_of_its_cells() -> None:
    larger = enlarge(np.array([[1, 0], [0, 0]], np.float32), 40, 60)

    assert larger.shape == (40, 60)
    assert larger[5, 5] == 1
    assert larger[35, 55] == 0


def test_large_images_are_shown_smaller() -> None:
    assert within(np.zeros((3000, 1500, 3), np.uint8), 1000).shape == (1000, 500, 3)
    assert within(np.zeros((30, 15, 3), np.uint8), 1000).shape == (30, 15, 3)


async def test_the_pool_explains_while_it_answers(panels: Path, task: Task, pixels: Pixels) -> None:
    pool = SpecialistPool(panels)
    await pool.start()
    try:
        before = await pool.consult(pixels, task)
        made = await pool.explain(pixels, task, "resnet18", "bright")
        after = await pool.consult(pixels, task)
    finally:
        await pool.close()

    assert made.label == "bright"
    assert made.probability == pytest.approx(before.predictions[2].probabilities[1], abs=1e-5)
    assert before.predictions[2].probabilities == pytest.approx(after.predictions[2].probabilities)


async def test_only_who_sits_on_the_panel_and_can_answer_explains(
    tmp_path: Path, task: Task, pixels: Pixels
) -> None:
    pool = SpecialistPool(tmp_path)
    await pool.start()
    try:
        with pytest.raises(SpecialistUnavailable, match="'resnet18' cannot answer: no specialist"):
            await pool.explain(pixels, task, "resnet18")
        with pytest.raises(UnknownBackbone, match="on the panel of task 'light'"):
            await pool.explain(pixels, task, "convnext-tiny")
    finally:
        await pool.close()
