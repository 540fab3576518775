"""torchvision and open_clip are imported without the compiler, timm and transformers, and all of them work all the same."""

import subprocess
import sys

import pytest

SCORES = """
import sys
import harness.evaluation.references, harness.evaluation.scores, harness.evaluation.extractors.registry, open_clip
assert "torchvision.ops.roi_align" in sys.modules, "the test is of nothing"
open_clip.CLIP(8, {"width": 8, "layers": 1, "head_width": 4, "image_size": 8, "patch_size": 4}, {"width": 8, "layers": 1, "heads": 2})
assert not {"torch._dynamo", "timm", "transformers", "scipy.ndimage"} & set(sys.modules)
"""

TOWERS = """
import sys
import harness.machine.device, open_clip, open_clip.model
vision = {"timm_model_name": "resnet18", "timm_pool": "avg", "timm_proj": "linear", "image_size": 32}
model = open_clip.CLIP(8, vision, {"width": 8, "layers": 1, "heads": 2})
assert type(model.visual) is open_clip.timm_model.TimmModel is sys.modules["open_clip.timm_model"].TimmModel
assert model.visual.__module__ == "open_clip.timm_model" and "timm" in sys.modules and "transformers" not in sys.modules
try:
    open_clip.model.HFTextEncoder("no such model", 8, pretrained=False)
    raise SystemExit("built from nothing")
except (OSError, ValueError):
    pass  # transformers' own answer
import transformers
assert open_clip.hf_model.transformers is transformers
assert isinstance(open_clip.CoCa(8, {"layers": 1, "width": 8, "heads": 2}, {"width": 8, "layers": 1, "heads": 2},
                                 {"width": 8, "layers": 1, "head_width": 4, "image_size": 8, "patch_size": 4}), open_clip.coca_model.CoCa)
"""

COMPILER = """
import sys
{first}
import harness.machine.device
import torch, torchvision
align = sys.modules["torchvision.ops.roi_align"]
import torch._dynamo.utils as real
assert real.__file__ and real.counters is not None
assert align.is_compile_supported("cpu") == real.is_compile_supported("cpu")
assert (align.is_compile_supported is real.is_compile_supported) == bool({first!r})
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist() == [2, 2]
"""


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scores_and_references_import_no_compiler_timm_or_transformers() -> None:
    run(SCORES)


def test_towers_of_timm_and_transformers_are_the_real_ones() -> None:
    run(TOWERS)


@pytest.mark.parametrize("first", ["", "import torch._dynamo"], ids=["torchvision first", "compiler first"])
def test_the_compiler_works_all_the_same(first: str) -> None:
    """The stand-in is gone, and torchvision asks the real one."""
    run(COMPILER.format(first=first))
