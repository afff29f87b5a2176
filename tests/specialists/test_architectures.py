"""What is left out of a computation changes nothing of its result."""

import pytest
import torch

from specialists.architectures import build, shortened
from specialists.catalogue import PANEL, Scale, find


@pytest.mark.parametrize("key", PANEL)
def test_a_shortened_model_embeds_alike(key: str) -> None:
    architecture = find(key).at(Scale.NANO)
    torch.manual_seed(0)
    model = build(architecture, 2).eval()
    images = torch.randn(3, 3, architecture.input_size, architecture.input_size)

    with torch.inference_mode():
        torch.testing.assert_close(shortened(model).embed(images), model.embed(images))


def test_a_shortened_model_shares_its_tensors_and_leaves_the_other_as_it_is() -> None:
    model = build(find("vit-b16").at(Scale.NANO), 2).eval()
    names = [name for name, _ in model.named_modules()]

    shorter = shortened(model)

    assert [name for name, _ in model.named_modules()] == names
    mine, theirs = list(model.parameters()), list(shorter.parameters())
    assert all(one is other for one, other in zip(mine, theirs, strict=True))
