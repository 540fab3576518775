"""What test_distributed.py starts under torchrun: a training and a sampling of the study in OUT/study.json, or one that fails in a process.

python -m torch.distributed.run ... two_processes.py RESULTS OUT [FAILING RANK]
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from harness.denoiser import sample
from harness.denoiser import train as denoiser
from harness.machine import device as runtime
from harness.machine import processes
from harness.study.study import Study
from harness.study.typed import UserError


def main(results: Path, out: Path, failing: str = "none") -> None:
    study = Study.model_validate_json((out / "study.json").read_text())
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
    encoder, common = results / "encoders" / "plain", {"method_name": "masked", "seed": 0, "state": out / "state"}
    latents_file = encoder / "latents.safetensors"
    printed = [denoiser.train(study, **common, latents_file=latents_file, out=out / "denoiser.safetensors")]
    printed += [
        sample.draw(
            study,
            **common,
            denoiser=results / "runs" / "masked" / "seed0" / "denoiser.safetensors",
            decoder=encoder / "decoder.safetensors",
            latents_file=latents_file,
            out=out / "samples.npz",
        )
    ]
    (out / f"printed-{processes.rank()}.json").write_text(json.dumps(printed))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    except UserError as error:
        sys.exit(f"error: {error}")
