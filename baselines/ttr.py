"""Test-time registers: one round of search for register neurons in the encoder."""

from harness import EncoderRegisters, Method

METHOD = Method(title="+ TTR", encoder=EncoderRegisters(kind="test_time", rounds=1))
