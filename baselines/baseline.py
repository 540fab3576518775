"""The untouched pipeline: plain encoder, plain denoiser, every token in the loss."""

from harness import Method

METHOD = Method(title="baseline (RAE-DiT)")
