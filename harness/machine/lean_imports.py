"""torchvision and open_clip without what nothing here calls: both import more than a job of the study computes.

`torchvision.ops.roi_align` imports torch's compiler (a second). Three modules of open_clip import timm or transformers (two seconds) for
classes that most models have none of: each class is imported for real where a model is built with it.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

ROI_ALIGN, COMPILER = "torchvision.ops.roi_align", "torch._dynamo.utils"
CLASSES = {"open_clip.timm_model": "TimmModel", "open_clip.hf_model": "HFTextEncoder", "open_clip.coca_model": "CoCa"}


def is_compile_supported(device_type: Any) -> Any:
    """torch's own answer; the compiler is imported at the first question."""
    from torch._dynamo.utils import is_compile_supported as answer

    return answer(device_type)


class _WithoutCompiler(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        """Runs the module beside a stand-in for the compiler's `utils`, which is gone afterwards."""
        stand_in = ModuleType(COMPILER)
        stand_in.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
        sys.modules[COMPILER] = stand_in
        try:
            super().exec_module(module)
        finally:
            del sys.modules[COMPILER]


class _Later(Loader):
    """Of a module that is run when its class is called, or anything else in it is asked for."""

    def __init__(self, spec: ModuleSpec) -> None:
        self.spec = spec
        self.real: ModuleType | None = None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = CLASSES[self.spec.name]

        def asked(attribute: str) -> Any:
            if attribute.startswith("__"):  # `inspect` asks every module for its file
                raise AttributeError(attribute)
            return getattr(self.run(), attribute)

        def build(*args: Any, **options: Any) -> Any:
            return getattr(self.run(), name)(*args, **options)

        setattr(module, name, build)
        module.__getattr__ = asked  # type: ignore[method-assign]

    def run(self) -> ModuleType:
        """The module itself, which then has the stand-in's place."""
        if self.real is None:
            real, (package, _, name) = module_from_spec(self.spec), self.spec.name.rpartition(".")
            self.spec.loader.exec_module(real)  # type: ignore[union-attr]
            self.real = sys.modules[self.spec.name] = real
            setattr(sys.modules[package], name, real)
        return self.real


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in CLASSES and (name != ROI_ALIGN or "torch._dynamo" in sys.modules):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if not spec or type(spec.loader) is not SourceFileLoader:
            return spec
        if name in CLASSES:
            return ModuleSpec(name, _Later(spec), origin=spec.origin)
        spec.loader = _WithoutCompiler(name, spec.loader.path)
        return spec


def keep_imports_lean() -> None:
    """From now on, both are imported without what they do not need, where that is not imported already."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
