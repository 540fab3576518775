"""Recursive test-time registers: stabilise the encoder and search again, until no outlier is left."""

from harness import EncoderRegisters, Method

METHOD = Method(title="+ recursive TTR", encoder=EncoderRegisters(kind="test_time", rounds="until_clean"))
