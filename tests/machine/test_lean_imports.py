"""torchvision is imported without torch's compiler, and the compiler works all the same."""

import subprocess
import sys

import pytest

SCORES = """
import sys
import harness.evaluation.references, harness.evaluation.fid
assert "torchvision.ops.roi_align" in sys.modules, "the test is of nothing"
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
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


def test_judge_and_references_import_no_compiler() -> None:
    run(SCORES)


@pytest.mark.parametrize("first", ["", "import torch._dynamo"], ids=["torchvision first", "compiler first"])
def test_the_compiler_works_all_the_same(first: str) -> None:
    """The stand-in is gone, and torchvision asks the real one."""
    run(COMPILER.format(first=first))
