"""Trained encoder registers: an encoder that was trained with register tokens, as DINOv2 with registers."""

from harness import EncoderRegisters, Method

METHOD = Method(title="+ trained encoder registers", encoder=EncoderRegisters(kind="trained"))
