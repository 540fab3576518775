"""Faults that tests put into trainings."""

from dataclasses import replace

from harness.denoiser import loss, train


def diverging(monkeypatch, first):
    """Let the loss of every denoiser be NaN from the step `first` on."""
    original = loss.parts_of

    def parts_of(*arguments):
        parts = original(*arguments)

        def faulty(step, generator):
            for part in parts(step, generator):
                yield replace(part, loss=lambda output, of=part.loss: of(output) * float("nan")) if step >= first else part

        return faulty

    for module in (loss, train):
        monkeypatch.setattr(module, "parts_of", parts_of)
