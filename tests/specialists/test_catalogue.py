import pytest
import torch

from specialists import catalogue
from specialists.architectures import build
from specialists.catalogue import CATALOGUE, PANEL, Scale
from specialists.errors import UnknownBackbone
from specialists.loader import stored
from specialists.task import Task


def test_the_panel_is_the_ten_of_the_paper() -> None:
    assert [CATALOGUE[key].name for key in PANEL] == [
        "VGG-16",
        "AlexNet",
        "ResNet-18",
        "DenseNet-121",
        "EfficientNet-B4",
        "ViT-B/16",
        "CLIP ViT-B/16",
        "EVA-02 ViT-B/16",
        "DINO ViT-B/16",
        "SAM ViT-B/16",
    ]


def test_others_to_compare_with_are_not_on_the_panel() -> None:
    others = [key for key in CATALOGUE if key not in PANEL]

    assert others == ["convnext-tiny", "efficientnetv2-s", "radimagenet-densenet121"]


def test_weights_nobody_may_hand_on_have_no_nano_relative() -> None:
    assert "radimagenet-densenet121" in catalogue.at_scale(Scale.FULL)
    assert "radimagenet-densenet121" not in catalogue.at_scale(Scale.NANO)
    with pytest.raises(UnknownBackbone, match="'radimagenet-densenet121' has no scale 'nano'"):
        catalogue.find("radimagenet-densenet121").at(Scale.NANO)


@pytest.mark.parametrize(
    ("key", "scale"), [(key, scale) for scale in Scale for key in catalogue.at_scale(scale)]
)
def test_a_backbone_gives_a_logit_per_label_and_the_promised_embedding(
    key: str, scale: Scale
) -> None:
    architecture = catalogue.find(key).at(scale)
    with torch.device("meta"):  # shapes without numbers: the full scale needs no memory
        model = build(architecture, labels=5).eval()
        images = torch.zeros(2, 3, architecture.input_size, architecture.input_size)
        logits, embedding = model(images)

    assert logits.shape == (2, 5)
    assert embedding.shape == (2, architecture.dimension)


@pytest.mark.parametrize("key", catalogue.at_scale(Scale.NANO))
def test_logits_and_embedding_come_from_one_forward(key: str) -> None:
    model = build(catalogue.find(key).at(Scale.NANO), labels=3).eval()
    passes: list[object] = []
    first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_hook(lambda *_: passes.append(1))

    logits, embedding = model(torch.rand(2, 3, 64, 64))

    assert len(passes) == 1
    torch.testing.assert_close(model.classify(embedding), logits)


def test_a_nano_panel_fits_into_four_and_a_half_megabytes() -> None:
    models = [build(catalogue.find(key).at(Scale.NANO), labels=3) for key in PANEL]
    tensors = [tensor for model in models for tensor in stored(model).values()]

    assert sum(tensor.nbytes for tensor in tensors) < 4_500_000


def test_the_full_recipe_is_the_papers() -> None:
    recipe = catalogue.recipe_of(Scale.FULL)

    assert (recipe.epochs, recipe.patience, recipe.learning_rate) == (100, 5, 1e-4)
    assert recipe.batch_size == 64
    assert not recipe.balanced
    assert recipe.augmentation == catalogue.Augmentation()


def test_an_unknown_backbone_is_answered_with_those_that_exist() -> None:
    with pytest.raises(UnknownBackbone, match="unknown backbone 'vgg19'; known: vgg16, alexnet"):
        catalogue.find("vgg19")


def test_a_task_may_name_its_own_panel(task: Task, new_task) -> None:
    assert catalogue.panel_of(task) == PANEL
    assert catalogue.panel_of(new_task(panel=["resnet18"])) == ("resnet18",)


def test_few_images_are_seen_more_often() -> None:
    many, few = (catalogue.recipe_of(Scale.NANO, images) for images in (100_000, 320))

    assert many == catalogue.recipe_of(Scale.NANO)
    assert few.epochs == 200  # 5 batches of 64
    assert few.patience > many.patience
