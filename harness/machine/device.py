"""Process-wide set-up: device and GPUs, threads, determinism, precision; torchvision beside a CPU-only torch."""

import fcntl
import importlib.util
import os
import platform
import tempfile
from io import TextIOBase
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from harness.machine import processes
from harness.machine.lean_imports import keep_imports_lean
from harness.study.typed import UserError

CPU_FACTS = {"vendor_id": "", "cpu family": "family ", "model": "model ", "CPU implementer": "implementer ", "CPU part": "part "}

_kept_alive: list[object] = []
_locks: list[TextIOBase] = []  # of GPUs


def ensure_torchvision() -> None:
    """Make `import torchvision` work beside a torch without CUDA.

    The registry's torchvision is built for CUDA; without its C++ library it fails on import because two operators are not declared.
    """
    spec = importlib.util.find_spec("torchvision")
    if _kept_alive or spec is None or spec.origin is None:
        return
    for library in ("_C.so", "_C_stable.so"):
        path = Path(spec.origin).parent / library
        if path.exists():
            try:
                torch.ops.load_library(str(path))
                _kept_alive.append(path)
                return
            except OSError:
                pass
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        declared.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept_alive.append(declared)


ensure_torchvision()
keep_imports_lean()


_device = [torch.device("cpu")]


def set_up(threads: int, gpus: int = 0, *, shared: bool = False) -> None:
    """Fix what else would change the last bits of a float. CUDA needs the workspace setting before its first call.

    `shared`: whether this stage's work can be shared by processes; under torchrun they are joined then, each with a GPU of its own.
    UserError under torchrun if it cannot.
    """
    _device[0] = torch.device("cuda", claim_gpu()) if gpus and torch.cuda.is_available() else torch.device("cpu")
    if _device[0].type == "cuda":
        torch.cuda.set_device(_device[0])
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    threadpool_limits(threads, user_api="blas")  # numpy's own: else all cores, which wait for each other and round differently
    os.environ["OPENBLAS_NUM_THREADS"] = str(threads)  # scipy's, which is loaded later
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True), without its import of the compiler (1.5 s)
    processes.join(shared)


def device() -> torch.device:
    """The GPU, where the study's jobs ask for one (`job.gpus`) and there is one; else the CPU."""
    return _device[0]


def device_name() -> str:
    """The GPU by its name; the CPU by what kernels are chosen by: float32 results have the same bits only where that is alike."""
    if device().type == "cuda":
        return torch.cuda.get_device_name()
    facts = cpu_facts()
    known = [f"{word}{facts[key]}" for key, word in CPU_FACTS.items() if facts.get(key)]
    return f"{platform.machine()} CPU ({', '.join([' '.join(known)] * bool(known) + [torch.backends.cpu.get_cpu_capability()])})"


def cpu_facts() -> dict[str, str]:
    """What Linux says of the first processor; elsewhere nothing."""
    cpuinfo = Path("/proc/cpuinfo")
    first = cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0] if cpuinfo.is_file() else ""
    return dict([part.strip() for part in line.split(":", 1)] for line in first.splitlines() if ":" in line)


def claim_gpu() -> int:
    """The first GPU that no other job of this user holds, so that Snakemake can run a job on each. The lock ends with the process.

    UserError if all are taken.
    """
    count = torch.cuda.device_count()
    for index in range(count):
        name = f"dsr-{os.getuid()}-gpu-{torch.cuda.get_device_properties(index).uuid}.lock"
        lock = open(Path(tempfile.gettempdir()) / name, "w", encoding="utf-8")  # noqa: SIM115 - the open file is the lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
        else:
            _locks.append(lock)
            return index
    raise UserError(f"all {count} GPUs of this machine are taken by other jobs; give Snakemake their number: --resources gpu={count}")


def allow_tf32(allowed: bool) -> None:
    """Let float32 matrix products on a GPU round their inputs to 10 bits of mantissa, as the released train.py:14 does."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def autocast(precision: str) -> torch.autocast:
    """Context in which matrix products take bf16 inputs, for precision `bf16`; no change for `fp32`."""
    return torch.autocast(device().type, torch.bfloat16, enabled=precision == "bf16")
