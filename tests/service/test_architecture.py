"""The network itself: shapes, names, and the places where MedDr's is peculiar."""

import numpy as np
import pytest
import torch
from builders import a_picture
from tiny_generalist import TINY

from service.generalist.architecture import IMAGENET_MEAN, IMAGENET_STD, InternVLChat, preprocess
from service.generalist.configuration import InternVLChatConfig

IMAGE_TOKEN = 7
VOCABULARY = 320
PROMPT = [3, 5, *[IMAGE_TOKEN] * 4, 6, 20, 21, 22]


def a_model(**fields: object) -> InternVLChat:
    language = {**TINY["llm_config"], "vocab_size": VOCABULARY}
    torch.manual_seed(0)
    return InternVLChat(
        InternVLChatConfig(**{**TINY, "llm_config": language, **fields}), IMAGE_TOKEN
    ).eval()


def an_input(rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, 3, 56, 56, generator=torch.Generator().manual_seed(1))


def test_gives_the_scores_of_every_next_token() -> None:
    output = a_model()(torch.tensor([PROMPT]), an_input())

    assert output.logits.shape == (1, len(PROMPT), VOCABULARY)


def test_counts_only_labelled_tokens_in_the_loss() -> None:
    model, ids = a_model(), torch.tensor([PROMPT])
    labels = torch.tensor([[-100] * 9 + [22]])

    output = model(ids, an_input(), labels=labels)

    expected = -torch.log_softmax(output.logits[0, 8], dim=-1)[22]
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_padding_changes_nothing() -> None:
    model = a_model()
    padded = torch.tensor([[*PROMPT, 0, 0]])
    mask = torch.tensor([[1] * len(PROMPT) + [0, 0]])

    alone = model(torch.tensor([PROMPT]), an_input()).logits
    with_padding = model(padded, an_input(), attention_mask=mask).logits[:, : len(PROMPT)]

    assert torch.allclose(alone, with_padding, atol=1e-4)


def test_every_weight_learns() -> None:
    model = a_model().train()

    ids = torch.tensor([PROMPT])
    model(ids, an_input(), labels=ids).loss.backward()

    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_weights_have_the_names_of_meddr() -> None:
    names = set(a_model().state_dict())

    assert {
        "vision_model.embeddings.class_embedding",
        "vision_model.embeddings.position_embedding",
        "vision_model.encoder.layers.0.attn.qkv.weight",
        "vision_model.encoder.layers.1.attn.q_norm.weight",
        "vision_model.encoder.layers.0.ls1",
        "mlp1.0.weight",
        "mlp1.3.bias",
        "language_model.model.layers.0.self_attn.q_proj.weight",
        "language_model.lm_head.weight",
    } <= names


def test_refuses_a_prompt_whose_image_places_do_not_fit() -> None:
    with pytest.raises(ValueError, match="3 image tokens in the prompt for 1 images of 4"):
        a_model()(torch.tensor([PROMPT[:2] + PROMPT[3:]]), an_input())


def test_pixel_shuffle_version_1_swaps_rows_and_columns() -> None:
    first, second = (a_model(ps_version=version) for version in ("v1", "v2"))

    swapped, straight = first.image_features(an_input()), second.image_features(an_input())

    assert torch.allclose(swapped[0, [0, 2, 1, 3]], straight[0], atol=1e-5)
    assert not torch.allclose(swapped, straight, atol=1e-2)


def test_meddr_reads_an_image_as_256_tokens() -> None:
    assert InternVLChatConfig().image_tokens == 256


def test_preprocessing_stretches_and_normalises() -> None:
    grey = np.full((30, 90, 3), 128, np.uint8)

    tensor = preprocess(grey, 56)

    assert tensor.shape == (3, 56, 56)
    expected = (128 / 255 - IMAGENET_MEAN) / IMAGENET_STD
    assert torch.allclose(tensor.mean((1, 2)), torch.from_numpy(expected), atol=1e-5)


def test_preprocessing_shows_the_same_image_the_same() -> None:
    picture = a_picture()

    assert torch.equal(preprocess(picture, 56), preprocess(picture.copy(), 56))
