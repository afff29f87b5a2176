"""A specialist made ready to leave: weights, manifest and card without any name, path or host."""

import io
import os
import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from specialists import card, loader
from specialists.errors import InvalidSpecialist, SpecialistRefused
from specialists.exchange import allowed
from specialists.exchange.parcel import TAR
from specialists.loader import CARD, MANIFEST, WEIGHTS, Manifest
from specialists.segmentation import models, network


@dataclass(frozen=True, slots=True)
class Exported:
    """What left: its manifest, and the fields that stayed behind."""

    manifest: Manifest
    path: Path
    dropped: tuple[str, ...]


def export(folder: Path, out: Path, *, licence: str | None = None) -> Exported:
    """Writes a specialist to a new folder, or to a new .tar file, whole or not at all.

    Only what `allowed` lists passes; a licence of one's own words is given anew. The task's name
    and labels pass as they are. Raises InvalidSpecialist, and SpecialistRefused where `out` exists
    or the licence could name somebody.
    """
    if out.exists():
        raise SpecialistRefused(f"{out} exists already: an export never replaces anything")
    is_segmenter = loader.read_manifest(folder).kind == models.KIND
    manifest = (network.load if is_segmenter else loader.load)(folder).manifest
    weights = _bare(folder / WEIGHTS)
    cleared = allowed.clear(manifest)
    manifest = replace(
        manifest,
        recipe=cleared.recipe,
        validation=cleared.validation,
        licence=allowed.licence(licence) if licence is not None else cleared.licence,
        data_fingerprint=manifest.data_fingerprint if _is_fingerprint(manifest) else "",
        weights_sha256=loader.sha256(weights),
    )
    _write(out, _files(weights, manifest))
    return Exported(manifest, out, cleared.dropped)


def remove(folder: Path) -> Manifest | None:
    """Removes a specialist, broken or not; None where its manifest was unreadable.

    Raises InvalidSpecialist where there is none.
    """
    if not folder.is_dir():
        raise InvalidSpecialist(f"no specialist {folder.name!r} on task {folder.parent.name!r}")
    try:
        manifest = loader.read_manifest(folder)
    except InvalidSpecialist:
        manifest = None
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".removing-") as name:
        folder.rename(Path(name) / folder.name)  # gone at once, not file by file
    return manifest


def _bare(weights: Path) -> bytes:
    """The tensors alone: a header may hold words of whoever wrote it."""
    return save_tensors(load_tensors(weights.read_bytes()))


def _is_fingerprint(manifest: Manifest) -> bool:
    return allowed.is_sha256(manifest.data_fingerprint)


def _files(weights: bytes, manifest: Manifest) -> dict[str, bytes]:
    return {
        WEIGHTS: weights,
        MANIFEST: loader.as_json(manifest).encode(),
        CARD: card.write(manifest).encode(),
    }


def _write(out: Path, files: dict[str, bytes]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".exporting-") as name:
        fresh = Path(name) / out.name
        if out.suffix == TAR:
            fresh.write_bytes(_tar(files))
        else:
            fresh.mkdir()
            for file, content in files.items():
                (fresh / file).write_bytes(content)
        _publish(fresh, out)


def _publish(fresh: Path, out: Path) -> None:
    """Renamed into place; whoever made `out` meanwhile keeps it."""
    if fresh.is_dir():
        out.mkdir()
        os.replace(fresh, out)
    else:
        os.link(fresh, out)


def _tar(files: dict[str, bytes]) -> bytes:
    """Without owner, group and time: the same specialist is the same file everywhere."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()
