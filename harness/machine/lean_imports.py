"""torchvision without torch's compiler: its `ops.roi_align` imports torch._dynamo (a second) for a function that nothing here calls."""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

ROI_ALIGN, COMPILER = "torchvision.ops.roi_align", "torch._dynamo.utils"


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


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != ROI_ALIGN or "torch._dynamo" in sys.modules:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and type(spec.loader) is SourceFileLoader:
            spec.loader = _WithoutCompiler(name, spec.loader.path)
        return spec


def keep_compiler_out() -> None:
    """From now on, torchvision is imported without torch's compiler, where that is not imported already."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
