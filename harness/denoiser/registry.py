"""What the names of architectures and samplers in a study stand for.

A new architecture: a subclass of Denoiser, registered here, and its shape in harness/study/sections/denoiser.py. A new sampler: its
integrator, registered here, and its facts in harness/study/sections/sampling.py.
"""

from harness.denoiser.base import Denoiser
from harness.denoiser.ddt import DDT
from harness.denoiser.diffusionbench import DiffusionBenchDDT
from harness.denoiser.ditdh import DiTDH
from harness.denoiser.jit import JiT
from harness.denoiser.lightningdit import LightningDiT
from harness.denoiser.lightningdit_hustvl import LightningDiTHustvl
from harness.denoiser.repa import REPA
from harness.denoiser.samplers import Sampler, euler, euler_maruyama, heun, ode_times, sde_times
from harness.denoiser.sit import SiT
from harness.study.sections.denoiser import Shape

ARCHITECTURES: dict[str, type[Denoiser]] = {
    "lightningdit": LightningDiT,
    "ditdh": DiTDH,
    "sit": SiT,
    "jit": JiT,
    "repa": REPA,
    "lightningdit_hustvl": LightningDiTHustvl,
    "ddt": DDT,
    "diffusionbench_ddt": DiffusionBenchDDT,
}

SAMPLERS = {
    "euler": Sampler(ode_times, euler),
    "heun": Sampler(ode_times, heun),
    "euler_maruyama": Sampler(sde_times, euler_maruyama),
}


def architecture_of(shape: Shape) -> type[Denoiser]:
    """The network of a study's section `denoiser`, or of the weak model of its guidance."""
    return ARCHITECTURES[shape.architecture]
