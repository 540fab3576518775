"""What the Snakefile needs to know, computed without torch: the checked configuration, and what makes a rule run again."""

import fcntl
import os
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from pydantic_core import to_jsonable_python

from harness.store.artifacts import sha256
from harness.store.assets import ROOT, missing
from harness.store.locks import try_lock
from harness.store.provenance import code_hash
from harness.study import places
from harness.study.method import EncoderRegisters, in_order, load_method, method_file, method_names
from harness.study.study import Study, load_study
from harness.study.typed import UserError, check_seeds, digest, nearest

__all__ = [
    "Run",
    "checked_config",
    "code_hash",
    "paper_sizes",
    "published_neurons",
    "put_own_python_first",
    "report_data",
    "run_of",
    "say_missing",
    "stop",
    "take_over_dead_lock",
]

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
        if try_lock(alive, fcntl.LOCK_EX):
            for lock in (folder / "locks").glob("*.lock"):
                lock.unlink(missing_ok=True)
        fcntl.flock(alive, fcntl.LOCK_SH)


@dataclass(frozen=True)
class Run:
    """A study with the seeds and methods that are asked for, and where its files are."""

    study: Study
    seeds: list[int]
    methods: list[str]
    assets: str = ROOT

    @property
    def encoders(self) -> list[str]:
        """Encoder variants that the methods need."""
        return sorted({self.encoder(name) for name in self.methods})

    def encoder(self, method: str) -> str:
        return load_method(method).encoder.key

    @cached_property
    def homes(self) -> dict[str, str]:
        """part -> the study in whose folder it is."""
        return {part: places.home(self.study, part) for part in places.PARTS}

    def at_home(self, part: str) -> bool:
        """Whether the study makes a part itself."""
        return self.homes[part] == self.study.name

    def place(self, part: str, name: str) -> str:
        """A file of a part."""
        return f"results/{self.homes[part]}/{name}"

    def backbone(self, encoder: str) -> str:
        """Folder of the backbone of an encoder variant."""
        return self.place("encoder", f"backbones/{EncoderRegisters.from_key(encoder).backbone}")

    def latents(self, encoder: str) -> str:
        return self.place("encoder", f"encoders/{encoder}/latents.safetensors")

    def registers(self, encoder: str) -> list[str]:
        """The neuron list of an encoder variant with test-time registers; nothing for the others."""
        return [self.place("encoder", f"encoders/{encoder}/registers.json")] if EncoderRegisters.from_key(encoder).searched else []

    def decoder(self, encoder: str) -> str:
        """The decoder of an encoder variant; the backbone where that decodes itself."""
        return self.backbone(encoder) if self.decodes_itself else self.place("decoder", f"encoders/{encoder}/decoder.safetensors")

    def images(self, encoder: str) -> dict[str, str]:
        """What encoding at every step reads, by option of the stage; nothing where the latents are cached."""
        if self.study.latents.cache:
            return {}
        paths = [self.place("data", "data"), self.backbone(encoder), *self.registers(encoder)]
        return dict(zip(("data", "backbone", "registers"), paths, strict=False))

    def files(self, *names: str, seeds: list[int] | None = None) -> list[str]:
        """Files of the runs of every method and of all seeds."""
        runs = [(method, seed) for method in self.methods for seed in seeds or self.seeds]
        return [f"results/{self.study.name}/runs/{method}/seed{seed}/{name}" for method, seed in runs for name in names]

    def rows(self, views: Collection[str] = ()) -> list[str]:
        """Every file that rows come from; `views` as rows.collect has them. UserError for a seed that guidance was chosen on."""
        names = ["scores.json", *self.averages("scores.json"), "outliers.json"]
        if "steps" in views:
            names += self.snapshots("scores.json")
        if "guided" in views and (search := self.study.sampling.guidance_search):
            if search.seed in self.seeds:
                raise UserError(
                    f"seed {search.seed}: guidance of study '{self.study.name}' is chosen on it (sampling.guidance_search.seed); take other seeds"
                )
            names.append("guided/scores.json")
        return self.files(*names)

    @property
    def decodes_itself(self) -> bool:
        return self.study.decoder.of_encoder

    @property
    def trains_judge(self) -> bool:
        return self.study.evaluation.judge.trained_with is not None

    @property
    def trains_clip(self) -> bool:
        return self.has_clip and self.study.evaluation.clip.trained_with is not None

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

    def snapshots(self, name: str) -> list[str]:
        """What `name` is called for the weights at earlier steps."""
        return [self.study.snapshot_file(Path(name), step).as_posix() for step in self.study.snapshots]

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
        """Hash of what the study says of an asset; a line on stderr where it is not there."""
        say_missing(self.study, self.assets, [name])
        return digest(self.study.assets[name])

    def encoder_records(self, backbone: str) -> list[str]:
        """What a backbone is made from: all assets of the encoder but those of another backbone."""
        others = self.records(*(f"encoder.{name}" for name in self.study.encoder.backbones if name != backbone))
        return [record for record in self.records("encoder") if record not in others]

    def decoder_records(self, encoder: str) -> list[str]:
        """What the decoder of an encoder variant is made from: published weights, or the networks of its losses."""
        fields = self.study.decoder.assets_of(EncoderRegisters.from_key(encoder).backbone)
        return self.records(*(f"decoder.{field}" for field in fields))

    def config(self, *sections: str) -> str:
        """Hash of the parts of the study that a rule reads (`decoder`, `outlier_statistics.factor`; none named: all of it).

        A param of the rule: Snakemake runs it again when they change.
        """

        return digest({name: to_jsonable_python(places.field(self.study, name)) for name in sections or type(self.study).model_fields})

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
        methods = next(m for m in (config.get("methods"), study.methods, method_names()) if m is not None)
        if not isinstance(methods, list) or not methods or not all(isinstance(name, str) for name in methods):
            raise UserError(f"methods must be a list of files in baselines/, such as '[baseline,dsr]'; got {methods!r}")
        for name in methods:
            load_method(name)
        if "baseline" not in methods:
            raise UserError("methods must contain 'baseline': every difference in the table is to it")
        for name in methods:
            check_fits(study, name)
        root = config.get("assets") or ROOT
        if not isinstance(root, str):
            raise UserError(f"assets must be the name of a folder; got {root!r}")
        say_missing(study, root)
        return Run(study, seeds, in_order(methods), root)
    except UserError as error:
        stop(str(error))


def run_of(config: dict) -> Run:
    """What the rules of one study are made for: the configuration that harness.workflow.targets gives to its module."""
    return Run(places.study_named(config["study"]), config["seeds"], config["methods"], config["assets"])


_said: set[str] = set()


def say_missing(study: Study, root: str, names: Collection[str] | None = None) -> None:
    """A line on stderr for each of the study's assets (or of those `names`) that is not there; the same line once."""
    for line in missing(study, Path(root), names):
        if line not in _said:
            print(f"missing: {line}", file=sys.stderr, flush=True)
            _said.add(line)


SIZES = ["siglip2_b_dit_s", "siglip2_b_dit_b", "siglip2_b_dit_l", "siglip2_b", "siglip2_b_ditdh", "siglip2_so400m", "sit_xl", "jit_h"]
SIZED = [f"imagenet256_{name}" for name in SIZES]  # one study for each size of denoiser in the paper, in the order of compute.md


def paper_sizes() -> str:
    """Hash of what reports/compute.md is rendered from, besides code."""
    paper = sha256(Path(__file__).parents[1] / "report" / "paper.yaml")
    return digest([paper, *(load_study(name).model_dump(mode="json") for name in SIZED)])


def published_neurons() -> str:
    """Hash of the published neuron lists, which are data and no part of a code hash."""
    return sha256(Path(__file__).parents[1] / "encoder" / "register_neurons")[:16]


def report_data() -> str:
    """Hash of what reports are rendered from besides code and rows: the paper's values, the template of the HTML page."""
    return digest([sha256(Path(__file__).parents[1] / "report" / name) for name in ("paper.yaml", "page.html.j2")])


def check_fits(study: Study, method: str) -> None:
    """UserError where a method asks for what the study's encoder does not have."""
    wanted = load_method(method)
    registers = wanted.registers(study.denoiser.registers)
    if registers and registers.start >= study.denoiser.depth:
        raise UserError(
            f"method '{method}': diffusion registers start at block {registers.start}, study '{study.name}' has {study.denoiser.depth}"
        )
    if wanted.encoder.backbone not in study.encoder.backbones:
        raise UserError(f"method '{method}' needs an encoder with trained registers; study '{study.name}' has none")
    if not study.encoder.has_tokens and (wanted.encoder.changes or wanted.loss_mask):
        raise UserError(
            f"method '{method}' works on the tokens of a ViT encoder; the encoder of study '{study.name}' is {study.encoder.kind}"
        )
    lists = study.search.released_neurons if study.search else {}
    if lists and wanted.encoder.searched and wanted.encoder.key not in lists:
        raise UserError(
            f"method '{method}': study '{study.name}' takes published register neurons, and names no list for {wanted.encoder.key}"
        )


def _numbers(values: object) -> object:
    """Snakemake reads the items of `--config seeds='[0,1]'` as strings."""
    if not isinstance(values, list):
        return values
    return [int(value) if isinstance(value, str) and value.isdecimal() else value for value in values]


def stop(message: str) -> NoReturn:
    """End Snakemake with one line and exit code 2: it would turn an exception into a traceback and exit code 1."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(2)
