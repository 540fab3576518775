"""What test_distributed.py starts under torchrun: a training and a sampling of the study in OUT/study.json, or one that fails in a process.

python -m torch.distributed.run ... two_processes.py RESULTS OUT [FAILING RANK]
"""

import json
import sys
from pathlib import Path

from harness.denoiser.sample import draw_samples
from harness.denoiser.train import train_denoisers

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from harness.denoiser import train as denoiser
from harness.machine import device as runtime
from harness.machine import processes
from harness.study.study import Study
from harness.study.typed import UserError


def main(results: Path, out: Path, failing: str = "none") -> None:
    study = Study.model_validate_json((out / "study.json").read_text(encoding="utf-8"))
    runtime.set_up(1, shared=True)
    original = denoiser.loss_of

    def loss_of(*arguments):
        loss = original(*arguments)

        def fails(step, generator):
            if step == 3 and str(processes.rank()) == failing:
                raise UserError(f"process {failing} failed on purpose")
            yield from loss(step, generator)

        return fails

    denoiser.loss_of = loss_of
    encoder, common = results / "encoders" / "plain", {"method": "masked", "seeds": [0], "state": out / "state"}
    latents = encoder / "latents.safetensors"
    printed = [train_denoisers(study, **common, latents=latents, out=[out / "denoiser.safetensors"])]
    printed += [
        draw_samples(
            study,
            **common,
            denoisers=[results / "runs" / "masked" / "seed0" / "denoiser.safetensors"],
            decoder=encoder / "decoder.safetensors",
            latents=latents,
            out=[out / "samples.npz"],
        )
    ]
    (out / f"printed-{processes.rank()}.json").write_text(json.dumps(printed), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    except UserError as error:
        sys.exit(f"error: {error}")
