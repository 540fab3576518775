"""Dual-Stage Registers for an encoder with trained registers: those, and diffusion registers (dossier §5, V6 on V2)."""

from harness.config import EncoderRegisters, Method

METHOD = Method(title="+ DSR (trained)", encoder=EncoderRegisters(kind="trained"), diffusion_registers=True)
