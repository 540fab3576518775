"""Dual-Stage Registers for an encoder with trained registers: those, and diffusion registers."""

from harness import EncoderRegisters, Method

METHOD = Method(title="+ DSR (trained)", encoder=EncoderRegisters(kind="trained"), diffusion_registers=True)
