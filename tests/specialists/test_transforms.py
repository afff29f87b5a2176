import numpy as np
import pytest
import torch

from specialists import transforms
from specialists.prediction import Pixels


def test_an_image_is_squeezed_whole_to_the_input_size(pixels: Pixels) -> None:
    pixels[:, :35] = 0
    pixels[:, 35:] = 255

    squeezed = transforms.resize(pixels, 64)

    assert squeezed.shape == (64, 64, 3)
    assert squeezed[:, :30].max() < 10
    assert squeezed[:, 34:].min() > 245


def test_resizing_twice_gives_the_same(pixels: Pixels) -> None:
    assert np.array_equal(transforms.resize(pixels, 64), transforms.resize(pixels, 64))


def test_an_image_of_the_right_size_is_left_as_it_is(pixels: Pixels) -> None:
    square = pixels[:64, :64]

    assert np.array_equal(transforms.resize(square, 64), square)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_other_pixels_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pixels are"):
        transforms.resize(wrong, 64)


def test_the_mean_colour_becomes_zero() -> None:
    images = np.full((1, 4, 4, 3), 51, np.uint8)  # 0.2 of the range

    normalised = transforms.normalise(images, mean=(0.2, 0.2, 0.1), std=(0.5, 0.5, 0.1))

    assert normalised.shape == (1, 3, 4, 4)
    torch.testing.assert_close(normalised[0, :, 0, 0], torch.tensor([0.0, 0.0, 1.0]))
