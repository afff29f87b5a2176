"""Ten thousand damaged files: none of them surprises the service (tests/load/fuzz.py)."""

import pytest
from load.fuzz import fuzz, mutant, seed_files

NAMED = {
    "pixels",
    "UnreadableImage",
    "UnsupportedImage",
    "ImageTooLarge",
    "decoder ended",
}


async def test_mutants_give_pixels_or_a_named_refusal() -> None:
    outcomes = await fuzz(300)

    assert set(outcomes) <= NAMED
    assert outcomes.total() == 300
    assert outcomes["pixels"] > 50


@pytest.mark.slow
async def test_ten_thousand_mutants_give_pixels_or_a_named_refusal() -> None:
    outcomes = await fuzz(10_000, seed=1)

    assert set(outcomes) <= NAMED
    assert outcomes.total() == 10_000
    assert outcomes["pixels"] > 2000


def test_mutants_are_the_same_in_every_run() -> None:
    seeds = seed_files()

    assert mutant(seeds, 0, 7) == mutant(seeds, 0, 7) != mutant(seeds, 1, 7)
