"""Options that several verbs share, and what their texts mean."""

from pathlib import Path
from typing import Annotated

import typer

from service.errors import Misconfigured
from specialists import catalogue
from specialists.catalogue import Scale

TaskOption = Annotated[str, typer.Option("--task", help="A task of the home folder.")]
DataOption = Annotated[
    Path,
    typer.Option("--data", help="A MedMNIST .npz, a folder of images, or a CSV that names images."),
]
WeightsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="BACKBONE=FILE",
        help="A .safetensors file that a backbone begins from; may be repeated.",
    ),
]
BackbonesOption = Annotated[
    str, typer.Option(help="Names with commas between them; default: the ten of the paper.")
]
ScaleOption = Annotated[Scale, typer.Option(help="nano trains on a laptop, full wants a GPU.")]


def named(text: str) -> tuple[str, ...]:
    """The backbones of a list with commas, each once; raises UnknownBackbone."""
    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    return tuple(catalogue.find(name).key for name in names)


def weights_of(texts: list[str], backbones: tuple[str, ...]) -> dict[str, Path]:
    """BACKBONE=FILE, or FILE alone for the only backbone; raises Misconfigured, UnknownBackbone."""
    files: dict[str, Path] = {}
    for text in texts:
        key, equals, file = text.partition("=")
        if not equals and len(backbones) != 1:
            raise Misconfigured(f"--weights {text}: for which backbone? write BACKBONE=FILE")
        name, file = (catalogue.find(key).key, file) if equals else (backbones[0], text)
        if name in files:
            raise Misconfigured(f"--weights names {name!r} twice")
        files[name] = Path(file).expanduser()
    return files


def pretrained_of(
    task: str,
    backbones: tuple[str, ...],
    scale: Scale,
    files: dict[str, Path],
    wanted: bool | None,
) -> dict[str, Path]:
    """The files given, and what the other backbones begin from unless that is not `wanted`.

    Full-size ones begin from the catalogue's weights in this machine's caches, nano ones from the
    shipped specialists of another task; a nano backbone that is not shipped begins from random
    numbers, unless pretrained weights are explicitly wanted. Raises Misconfigured, InvalidWeights.
    """
    from service.demo import home
    from specialists.training import hub

    if wanted is False:
        return files
    missing = [name for name in backbones if name not in files]
    if scale is Scale.FULL:
        return files | {name: hub.find(name) for name in missing}
    shipped = home.trunks(task)
    if wanted and (bare := [name for name in missing if name not in shipped]):
        raise Misconfigured(
            f"there are no pretrained weights of a nano {bare[0]}: --weights {bare[0]}=FILE"
        )
    return files | {name: shipped[name] for name in missing if name in shipped}
