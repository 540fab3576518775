"""Sizes of the paper-scale denoisers: our counts beside the values that the paper prints, and what their training takes."""

from harness.evaluation import cost
from harness.evaluation.cost import Price
from harness.plan.jobs import TRAINED
from harness.plan.markdown import flops_text, hours_text
from harness.plan.model import PEAKS, UTILISATION, Frozen
from harness.plan.networks import Networks
from harness.report import paper
from harness.results.markdown import markdown_table
from harness.study.study import Study, load_study


class Sizes(Frozen):
    """A denoiser without and with a study's diffusion registers, beside what the paper prints for its baseline and for DSR."""

    study: Study
    plain: Price
    registers: Price
    encoder: int  # FLOPs of the encoder for one image, at every step of the training
    printed: dict[str, dict[str, paper.Printed]]  # method -> score

    def match(self, method: str, score: str) -> bool | None:
        """Whether our count is the printed one; None where the paper prints none."""
        printed, ours = self.printed.get(method, {}).get(score), self.plain if method == "baseline" else self.registers
        if printed is None:
            return None
        if score == "gflops":
            return printed.matches(ours.flops / 1e9)
        return printed.matches(ours.parameters if printed.counts == "trainable" else ours.all_parameters)


def sizes(study: Study) -> Sizes:
    """Counted for the denoiser of a study."""
    from harness.denoiser.build import build_shape

    section = study.denoiser
    count, start = section.registers.count, section.registers.start
    return Sizes(
        study=study,
        plain=cost.denoiser_price(study, lambda: build_shape(study, section)),
        registers=cost.denoiser_price(study, lambda: build_shape(study, section, registers=count, register_start=start)),
        encoder=0 if study.latents.cache else Networks(study).encoder("plain").flops,
        printed=paper.values(study.name),
    )


def compute_table(studies: list[str], utilisation: float = UTILISATION) -> str:
    """The content of reports/compute.md: sizes of the paper-scale denoisers, our counts beside the paper's, and what training takes."""
    counted = [sizes(load_study(name)) for name in studies]
    hours = 1e12 * utilisation * 3600
    counts, trainings = [], []
    for one in counted:
        section, study = one.study.denoiser, one.study
        model, registers = f"{section.text}, {_input(study)}", f"{section.registers.count} @ {section.registers.start}"
        for method, price in (("baseline", one.plain), ("dsr", one.registers)):
            counts.append([
                model if method == "baseline" else f"+ registers {registers}", f"{price.parameters / 1e6:.2f}",
                f"{price.all_parameters / 1e6:.2f}", *_beside(one, method, "parameters"),
                f"{price.flops / 1e9:.1f}", *_beside(one, method, "gflops"),
                "" if method == "baseline" else f"+{price.flops / one.plain.flops - 1:.1%}",
            ])  # fmt: skip
        epoch = section.training.epoch(study.data.train_images) * section.training.batch
        precision = section.training.arithmetic
        row = [f"{model}, {precision}"]
        for epochs in (80, 800):
            for price in (one.plain, one.registers):
                flops = (TRAINED * price.flops + one.encoder) * epoch * epochs
                row.append(f"{flops_text(flops)} ({hours_text(flops / (PEAKS[precision] * hours))})")
        trainings.append(row)
    heading = ["Model: width/depth/heads, input", "Parameters, M", "all, M", "paper, M", "match", "GFLOPs", "paper", "match", "more FLOPs"]
    training_heading = ["Model, precision", "80 epochs", "80, with registers", "800 epochs", "800, with registers"]
    sources = dict.fromkeys(
        source
        for one in counted
        for scores in one.printed.values()
        for score in ("parameters", "gflops")
        if score in scores
        for source in scores[score].sources
    )
    missed = [one.study.name for one in counted for m in ("baseline", "dsr") for s in ("parameters", "gflops") if one.match(m, s) is False]
    verdict = f"Mismatches: {', '.join(missed)}." if missed else "Every value that the paper prints is matched at its printed precision."
    notes = [
        f"{verdict} Paper: {'; '.join(sources)}. Empty: not printed there.",
        "GFLOPs: one forward pass of one image, counted by torch (2 per multiply-add, attention included). "
        "Registers: count @ the block before which they are prepended. The paper states 36 @ 8; its GFLOPs of the two models with 12 "
        "blocks are those of 36 @ 4.",
        "Parameters: trainable ones; `all` adds the fixed position table and Fourier frequencies, which are parameters in the released "
        "code. The paper's 676M is the trainable count with its decimals cut off, its 839M the count of all, rounded; no one convention "
        "gives both.",
        "Training: 3 forward passes an image and one of the encoder, where there is one; in brackets GPU-hours on an H100 "
        f"(TF32 {PEAKS['tf32']:g}, bf16 {PEAKS['bf16']:g} TFLOP/s) at a utilisation of {utilisation:g}, which training DiT-XL in TF32 "
        f"reached on one. An epoch is what is left of {counted[0].study.data.train_images:,} images in whole batches.",
    ]
    return (
        "# Compute: this code beside the paper\n\n"
        f"{markdown_table(heading, counts)}\n\n## Training\n\n{markdown_table(training_heading, trainings)}\n\n"
        + "\n".join(f"- {line}" for line in notes)
        + "\n"
    )


def _beside(one: Sizes, method: str, score: str) -> list[str]:
    """The printed value and whether ours is it."""
    match = one.match(method, score)
    return ["", ""] if match is None else [one.printed[method][score].text, "yes" if match else "**no**"]


def _input(study: Study) -> str:
    channels, side, _ = study.latent_shape
    return f"{channels}×{side}×{side}" + (f", patch {study.denoiser.patch}" if study.denoiser.patch > 1 else "")
