"""Catalogue entries made into torch modules that predict and embed in one forward.

timm's models take their sizes as arguments; three families fix some of them in code, and are
assembled here from timm's and torchvision's own parts, with every size an argument.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, cast

import timm
import torch
from timm.layers import ClassifierHead
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.efficientnet import EfficientNet
from timm.models.vgg import VGG, ConvMlp
from torch import Tensor, nn
from torchvision.models import AlexNet

from specialists.catalogue import Architecture


class EmbeddingClassifier(nn.Module):
    """A backbone whose one forward gives (logits (batch, labels), embedding (batch, dimension)).

    The embedding is the pooled pre-logits: exactly what the last linear layer reads.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.embed(images)
        return self.classify(embedding), embedding

    def classify(self, embedding: Tensor) -> Tensor:
        """The logits that belong to an embedding."""
        return cast(Tensor, self._classifier()(embedding))

    def classifier_names(self) -> frozenset[str]:
        """The backbone's tensors that belong to its last linear layer."""
        last = self._classifier()
        return frozenset(
            f"{name}.{tensor}"
            for name, module in self.backbone.named_modules()
            if module is last
            for tensor in module.state_dict()
        )

    def embed(self, images: Tensor) -> Tensor:
        """The embedding alone: all of the backbone but its last linear layer, its trunk."""
        backbone = cast(Any, self.backbone)
        return cast(
            Tensor, backbone.forward_head(backbone.forward_features(images), pre_logits=True)
        )

    def _classifier(self) -> nn.Module:
        classifier = cast(Any, self.backbone).get_classifier()
        return cast(nn.Module, getattr(classifier, "fc", classifier))  # SAM gives its whole head


class AlexNetClassifier(EmbeddingClassifier):
    """The same of torchvision's AlexNet, whose last linear layer ends its `classifier`."""

    backbone: AlexNet

    def embed(self, images: Tensor) -> Tensor:
        features = self.backbone.avgpool(self.backbone.features(images))
        return cast(Tensor, self.backbone.classifier[:-1](torch.flatten(features, 1)))

    def _classifier(self) -> nn.Module:
        return cast(nn.Module, self.backbone.classifier[-1])


def build(architecture: Architecture, labels: int) -> EmbeddingClassifier:
    """The untrained model of an architecture with one logit per label."""
    backbone = _construct(
        architecture.constructor, dict(architecture.arguments) | {"num_classes": labels}
    )
    wrap = AlexNetClassifier if isinstance(backbone, AlexNet) else EmbeddingClassifier
    return wrap(backbone)


def shadow(model: EmbeddingClassifier) -> EmbeddingClassifier:
    """The same tensors in modules of their own: what is done to these, the model does not see."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()


def shortened(model: EmbeddingClassifier) -> EmbeddingClassifier:
    """A shadow that embeds alike and leaves out what nobody reads.

    A transformer that is pooled by its class token reads nothing else of its last block, whose
    second half (a layer norm and the MLP) works token by token: here on the first one only. That
    is a twentieth of such a backbone. The sum with the others broadcasts; they are not read.
    """
    shorter = shadow(model)
    backbone = cast(Any, shorter.backbone)
    if getattr(backbone, "global_pool", None) == "token":
        last = backbone.blocks[-1]
        last.norm2 = nn.Sequential(FirstToken(), last.norm2)
    return shorter


class FirstToken(nn.Module):
    """(batch, tokens, width) → (batch, 1, width)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, :1]


def on_device(model: EmbeddingClassifier, device: str) -> EmbeddingClassifier:
    """The model on a device, its convolutions in the layout that runs them faster (measured)."""
    model.to(device)
    model.to(memory_format=torch.channels_last)
    return model


def _construct(constructor: str, arguments: Mapping[str, Any]) -> nn.Module:
    module, _, name = constructor.partition(":")
    if module == "timm":
        return cast(nn.Module, timm.create_model(name, pretrained=False, **arguments))
    function: Callable[..., nn.Module] = getattr(import_module(module), name)
    return function(**arguments)


def small_vgg(
    *, layers: Sequence[int | str], hidden: int, kernel_size: int, num_classes: int
) -> nn.Module:
    """timm's VGG with a head of `hidden` features; the original's is fixed at 4096 over 7×7."""
    model = VGG(list(layers), num_classes=num_classes, mlp_ratio=1 / 512)
    model.pre_logits = ConvMlp(model.num_features, hidden, kernel_size)
    model.head = ClassifierHead(hidden, num_classes)
    model.head_hidden_size = hidden
    model._initialize_weights()
    return cast(nn.Module, model)


def small_efficientnet(
    *, stages: Sequence[str], stem_size: int, num_features: int, num_classes: int
) -> nn.Module:
    """timm's EfficientNet of `stages` in its notation, as ir_r2_k3_s2_e4_c32_se0.25."""
    model = EfficientNet(
        block_args=decode_arch_def([[stage] for stage in stages]),
        stem_size=stem_size,
        num_features=num_features,
        num_classes=num_classes,
        round_chs_fn=partial(round_channels, divisor=4),
        act_layer=nn.SiLU,
    )
    return cast(nn.Module, model)


def small_alexnet(
    *,
    channels: Sequence[int],
    stem: Mapping[str, Any],
    pooled_size: int,
    hidden: int,
    dropout: float,
    num_classes: int,
) -> AlexNet:
    """torchvision's AlexNet, layer for layer, with other widths and a stem for small images."""
    model = AlexNet(num_classes=num_classes, dropout=dropout)
    one, two, three, four, five = channels
    model.features[0] = nn.Conv2d(3, one, **stem)
    model.features[3] = nn.Conv2d(one, two, kernel_size=5, padding=2)
    model.features[6] = nn.Conv2d(two, three, kernel_size=3, padding=1)
    model.features[8] = nn.Conv2d(three, four, kernel_size=3, padding=1)
    model.features[10] = nn.Conv2d(four, five, kernel_size=3, padding=1)
    model.avgpool = nn.AdaptiveAvgPool2d((pooled_size, pooled_size))
    model.classifier[1] = nn.Linear(five * pooled_size**2, hidden)
    model.classifier[4] = nn.Linear(hidden, hidden)
    model.classifier[6] = nn.Linear(hidden, num_classes)
    return model
