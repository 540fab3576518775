"""Dual-Stage Registers for an encoder without trained registers: recursive TTR and diffusion registers."""

from harness import EncoderRegisters, Method

METHOD = Method(
    title="+ DSR",
    encoder=EncoderRegisters(kind="test_time", rounds="until_clean"),
    diffusion_registers=True,
)
