"""What the Snakefile needs to know, computed without torch: the checked configuration, and what makes a rule run again."""

import fcntl
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydantic_core import to_jsonable_python

from harness.artifacts import code_hash, sha256
from harness.assets import ROOT, missing
from harness.config import EncoderRegisters, UserError, check_seeds, digest, load_method, method_file, method_names, nearest
from harness.locks import attempt
from harness.sections import OwnDecoder, TrainedClip, TrainedJudge
from harness.study import Study, load_study

__all__ = [
    "FIGURES",
    "Run",
    "checked_config",
    "code_hash",
    "figures_of",
    "paper_sizes",
    "published_neurons",
    "put_own_python_first",
    "report_data",
    "take_over_dead_lock",
]

FIGURES = ("samples", "encoder_norms", "denoiser_outliers", "fid")  # one function each in harness/report/figures.py
KEYS = ("study", "seeds", "methods", "assets")


def put_own_python_first() -> None:
    """Rules run `python -m harness`: let that be the interpreter of Snakemake (a rule's conda environment still comes before it)."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def take_over_dead_lock() -> None:
    """Remove the locks that a killed Snakemake left in this folder, if no other one is alive here; called while the Snakefile is parsed.

    Every Snakemake of the folder shares a lock of the kernel while it lives. Where another one does, its locks stay, and Snakemake
    itself refuses to run the same rules twice.
    """
    folder = Path(".snakemake")
    with suppress(OSError):  # a read-only folder, or a file system without locks: then Snakemake says what it finds
        folder.mkdir(exist_ok=True)
        alive = os.open(folder / "dsr.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)  # open, and so held, until this process ends
        if attempt(alive, fcntl.LOCK_EX):
            for lock in (folder / "locks").glob("*.lock"):
                lock.unlink(missing_ok=True)
        fcntl.flock(alive, fcntl.LOCK_SH)


@dataclass(frozen=True)
class Run:
    """The configured study, seeds and methods."""

    study: Study
    seeds: list[int]
    methods: list[str]

    @property
    def encoders(self) -> list[str]:
        """Encoder variants that the methods need."""
        return sorted({self.encoder(name) for name in self.methods})

    def encoder(self, method: str) -> str:
        return load_method(method).encoder.key

    def backbone(self, encoder: str) -> str:
        return EncoderRegisters.from_key(encoder).backbone

    @property
    def caches(self) -> bool:
        """Whether training reads cached latents rather than images."""
        return self.study.latents.cache

    @property
    def decodes_itself(self) -> bool:
        return isinstance(self.study.decoder, OwnDecoder)

    @property
    def trains_judge(self) -> bool:
        return isinstance(self.study.evaluation.judge, TrainedJudge)

    @property
    def trains_clip(self) -> bool:
        return isinstance(self.study.evaluation.clip, TrainedClip)

    @property
    def has_clip(self) -> bool:
        return self.study.evaluation.clip is not None

    @property
    def other_averages(self) -> list[str]:
        """Names of the weights of the EMA decays that are kept and not sampled."""
        plain = Path("denoiser.safetensors")
        return [self.study.average_file(plain, decay).name for decay in self.study.denoiser.ema if decay != self.study.ema]

    def averages(self, name: str) -> list[str]:
        """What `name` is called for the further EMA decays that are sampled."""
        return [self.study.average_file(Path(name), decay).name for decay in self.study.sampling.averages]

    @property
    def launcher(self) -> str:
        """What starts a stage that several processes share."""
        processes = self.study.job.processes
        return "python -m harness" if processes == 1 else f"torchrun --standalone --nproc-per-node {processes} -m harness"

    def records(self, *fields: str) -> list[str]:
        """Records of the assets below `fields` (`data`, `encoder.plain`, ...), where the study has any."""
        names = [name for name in self.study.assets if f"{name}.".startswith(tuple(f"{field}." for field in fields))]
        return [f"results/{self.study.name}/assets/{name}.json" for name in names]

    def asset(self, name: str) -> str:
        """Hash of what the study says of an asset."""
        return digest(self.study.assets[name])

    def decoder_records(self, encoder: str) -> list[str]:
        """What the decoder of an encoder variant is made from: published weights, or the networks of its losses."""
        released = f"decoder.released.{self.backbone(encoder)}"
        if released in self.study.assets:
            return [f"results/{self.study.name}/assets/{released}.json"]
        return self.records("decoder.perceptual", "decoder.adversarial")

    def config(self, *sections: str) -> str:
        """Hash of the parts of the study that a rule reads (`decoder`, `outlier_statistics.factor`; none named: all of it).

        A param of the rule: Snakemake runs it again when they change.
        """

        def part(name: str) -> object:
            value = self.study
            for field in name.split("."):
                value = getattr(value, field, None)  # a study without the section has no value for it
            return value

        return digest({name: to_jsonable_python(part(name)) for name in sections or type(self.study).model_fields})

    def method(self, name: str) -> str:
        """Hash of a method's file."""
        return sha256(method_file(name))[:16]


def checked_config(config: dict) -> Run:
    """Snakemake's config, checked; a mistake is one line and exit code 2, before any job starts."""
    try:
        for key in config:
            nearest(key, KEYS, "config key")
        study = load_study(str(config.get("study")))
        seeds = check_seeds(study.seeds if config.get("seeds") is None else _numbers(config["seeds"]))
        known = method_names()
        methods = next(m for m in (config.get("methods"), study.methods, known) if m is not None)
        if not isinstance(methods, list) or not methods:
            raise UserError(f"methods must be a list of files in baselines/, such as '[baseline,dsr]'; got {methods!r}")
        for name in methods:
            nearest(name, known, "method")
        if "baseline" not in methods:
            raise UserError("methods must contain 'baseline': every difference in the table is to it")
        for name in methods:
            check_fits(study, name)
        root = config.get("assets") or ROOT
        if not isinstance(root, str):
            raise UserError(f"assets must be the name of a folder; got {root!r}")
        for line in missing(study, Path(root)):
            print(f"missing: {line}", file=sys.stderr, flush=True)
        return Run(study, seeds, [name for name in known if name in methods])
    except UserError as error:
        _stop(str(error))


def figures_of(study: Study) -> tuple[str, ...]:
    """The figures of a study; only a ViT encoder has token norms."""
    return FIGURES if study.has_vit else tuple(name for name in FIGURES if name != "encoder_norms")


SIZES = ["siglip2_b_dit_s", "siglip2_b_dit_b", "siglip2_b_dit_l", "siglip2_b", "siglip2_b_ditdh", "siglip2_so400m", "sit_xl", "jit_h"]
SIZED = [f"imagenet256_{name}" for name in SIZES]  # one study for each size of denoiser in the paper, in the order of compute.md


def paper_sizes() -> str:
    """Hash of what reports/compute.md is rendered from, besides code."""
    paper = sha256(Path(__file__).parent / "paper.yaml")
    return digest([paper, *(load_study(name).model_dump(mode="json") for name in SIZED)])


def published_neurons() -> str:
    """Hash of the published neuron lists, which are data and no part of a code hash."""
    return sha256(Path(__file__).parent / "models" / "register_neurons")[:16]


def report_data() -> str:
    """Hash of what reports are rendered from besides code and rows: the paper's values, the template of the HTML page."""
    return digest([sha256(Path(__file__).parent / name) for name in ("paper.yaml", "report/page.html.j2")])


def check_fits(study: Study, method: str) -> None:
    """UserError where a method asks for what the study's encoder does not have."""
    wanted = load_method(method)
    registers = wanted.registers(study)
    if registers and registers.start >= study.denoiser.depth:
        raise UserError(
            f"method '{method}': diffusion registers start at block {registers.start}, study '{study.name}' has {study.denoiser.depth}"
        )
    if wanted.encoder.backbone not in study.backbones:
        raise UserError(f"method '{method}' needs an encoder with trained registers; study '{study.name}' has none")
    if not study.has_vit and (wanted.encoder.kind != "none" or wanted.loss_mask):
        raise UserError(
            f"method '{method}' works on the tokens of a ViT encoder; the encoder of study '{study.name}' is {study.encoder.kind}"
        )
    lists = study.search.released_neurons if study.search else {}
    if lists and wanted.encoder.kind == "test_time" and wanted.encoder.key not in lists:
        raise UserError(
            f"method '{method}': study '{study.name}' takes published register neurons, and names no list for {wanted.encoder.key}"
        )


def _numbers(values: object) -> object:
    """Snakemake reads the items of `--config seeds='[0,1]'` as strings."""
    if not isinstance(values, list):
        return values
    return [int(value) if isinstance(value, str) and value.isdecimal() else value for value in values]


def _stop(message: str) -> NoReturn:
    """Snakemake would turn an exception into a traceback and exit code 1."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(2)
