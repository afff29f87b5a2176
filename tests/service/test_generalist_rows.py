"""Prompts of different lengths in one computation, and the layers that compute them."""

import resource
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from service.generalist.linear import OneDnnLinear, by_onednn
from service.generalist.rows import MOST_PADDED, alike


@given(st.lists(st.integers(1, 400), max_size=12))
def test_rows_of_about_one_length_are_read_together(lengths: list[int]) -> None:
    groups = list(alike(lengths))

    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    for group in groups:
        together = [lengths[place] for place in group]
        assert max(together) <= MOST_PADDED * min(together)


def test_one_long_row_is_read_alone() -> None:
    assert list(alike([50, 300, 52, 49])) == [[3, 0, 2], [1]]


@pytest.mark.parametrize("shape", [(5,), (1, 7), (3, 50)])
@pytest.mark.parametrize("bias", [True, False])
def test_onednn_computes_the_same(shape: tuple[int, ...], bias: bool) -> None:
    layer = torch.nn.Linear(24, 40, bias)
    images = torch.randn(*shape, 24)
    expected = layer(images).detach()

    by_onednn(layer)

    assert type(layer) is OneDnnLinear
    with torch.inference_mode():
        torch.testing.assert_close(layer(images), expected, atol=1e-5, rtol=1e-5)


def test_prompts_of_many_lengths_take_no_memory() -> None:
    layer = torch.nn.Linear(256, 768)
    by_onednn(layer)
    with torch.inference_mode():
        layer(torch.zeros(2, 256))
        before = resident_bytes()
        for length in range(2, 302):
            layer(torch.zeros(length, 256))

    assert resident_bytes() - before < 50 << 20


def test_what_is_not_float32_stays_as_it_was() -> None:
    layer = torch.nn.Linear(4, 4, dtype=torch.bfloat16)

    by_onednn(layer)

    assert type(layer) is torch.nn.Linear


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
