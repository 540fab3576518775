"""What a score file says of how its numbers were made: settings, code, arithmetic, and the hashes of the run's artifacts."""

from pathlib import Path

from pydantic import BaseModel

from harness.results.schema import NONE, Provenance
from harness.store import artifacts
from harness.store.code import code_hash
from harness.store.provenance import provenance
from harness.study.seeds import WORD, recorded, run_name
from harness.study.study import Study
from harness.study.typed import UserError, digest


def provenance_of(module: str, config: BaseModel, study: Study, method: str) -> Provenance:
    """`module` computes the scores of the method with the part `config` of the study."""
    training = study.denoiser.training
    return made_by(module, digest(config), precision=arithmetic(study, method), tf32=training.tf32, compiled=training.compile)


def made_by(module: str, config: str, *, precision: str, tf32: bool, compiled: bool) -> Provenance:
    """Of this process; `config`: hash of the settings."""
    process = provenance()
    return Provenance(
        config=config,
        code=code_hash(module),
        commit=process["commit"],
        dirty=process["dirty"],
        precision=precision,
        tf32=tf32,
        compile=compiled,
        versions=", ".join(f"{name} {version}" for name, version in process["versions"].items()),
        device=process["device"],
    )


def arithmetic(study: Study, method: str) -> str:
    """In what precision a run was trained and sampled; `float32` for both. How published weights were trained is not known."""
    if method in study.denoiser.released:
        return f"published weights, sample {study.sampling.precision}"
    precisions = (study.denoiser.training.precision, study.sampling.precision)
    return "float32" if precisions == ("fp32", "fp32") else f"train {precisions[0]}, sample {precisions[1]}"


def check_run(path: Path, method: str, seed: int, step: int | None = None) -> None:
    """UserError where weights or samples are of another run, or of another `step` than the last (None).

    A file that was moved with its record is what it says it is, in the wrong place.
    """
    record = artifacts.meta(path)
    if record.get("stage") == "import":
        raise UserError(
            f"{path}: an imported checkpoint: it can be sampled from, but is no run of a seed, so it is not scored beside runs; "
            "to have it scored, name it in the study: denoiser.released"
        )
    if (record.get("method"), record.get("seed")) != (method, recorded(seed)):
        own = record.get("seed")
        raise UserError(
            f"{path}: is of {record.get('method')}/{own if own == WORD else f'seed{own}'}, not of {method}/{run_name(seed)}; "
            "delete it and run the same command again"
        )
    if record.get("step") != step:
        raise UserError(f"{path}: is of step {record.get('step', 'last')}, not {step or 'last'}; delete it and run the same command again")


def chain(latents: Path) -> dict[str, str]:
    """SHA-256 of a run's latents, and of the encoder and neuron list that they are from."""
    record = artifacts.meta(latents)
    return {"encoder": record["encoder"], "registers": record.get("registers", NONE), "latents": artifacts.checked(latents)}
