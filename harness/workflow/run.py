"""What a study's rules are made for: the study with its seeds and methods, where its files are, and what makes a rule run again."""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from harness.store import code
from harness.store.assets import ASSETS_FOLDER, missing, state_of
from harness.study import places
from harness.study.method import EncoderRegisters, load_method, method_file
from harness.study.seeds import run_name
from harness.study.study import Study
from harness.study.typed import UserError, digest
from harness.workflow.stages import STAGES


@dataclass(frozen=True)
class Run:
    """A study with the seeds and methods that are asked for, and where its files are."""

    study: Study
    seeds: list[int]
    methods: list[str]
    assets: str = ASSETS_FOLDER

    @property
    def encoders(self) -> list[str]:
        """Encoder variants that the methods need."""
        return sorted(set(self._encoder_of.values()))

    @property
    def trained(self) -> list[str]:
        """Methods whose denoisers the study trains; the others' weights are published."""
        return [name for name in self.methods if name not in self.study.denoiser.released]

    @property
    def published(self) -> list[str]:
        """Methods whose weights are published."""
        return [name for name in self.methods if name in self.study.denoiser.released]

    def encoder(self, method: str) -> str:
        return self._encoder_of[method]

    @cached_property
    def _encoder_of(self) -> dict[str, str]:
        return {name: load_method(name).encoder.key for name in self.methods}

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
        runs = [(method, run_name(seed)) for method in self.methods for seed in self.study.seeds_of(method, seeds or self.seeds)]
        return [f"results/{self.study.name}/runs/{method}/{run}/{name}" for method, run in runs for name in names]

    def rows(self, views: Collection[str] = ()) -> list[str]:
        """Every file that rows come from; `views` as rows.collect has them. UserError for a seed that guidance was chosen on."""
        names = ["scores.json", *self.averages("scores.json"), "outliers.json"]
        if "steps" in views:
            names += self.snapshots("scores.json")
        if "guided" in views and (search := self.study.sampling.guidance_search):
            if search.seed in self.seeds:
                raise UserError(
                    f"seed {search.seed}: guidance of study '{self.study.name}' is chosen on it (sampling.guidance_search.seed); "
                    "take other seeds"
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
        clip = self.study.evaluation.clip
        return clip is not None and clip.trained_with is not None

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
    def together(self) -> bool:
        """Whether one job takes all seeds of a method: on a CPU, where starts cost as much as work."""
        return not self.study.job.gpus and self.study.job.processes == 1

    @property
    def launcher(self) -> str:
        """What starts a stage that several processes share."""
        processes = self.study.job.processes
        return "python -m harness" if processes == 1 else f"torchrun --standalone --nproc-per-node {processes} -m harness"

    def records(self, *fields: str) -> list[str]:
        """Records of the assets below `fields` (`data`, `encoder.plain`, ...), where the study has any."""
        names = [name for name in self.study.assets if f"{name}.".startswith(tuple(f"{field}." for field in fields))]
        return [self._record(name) for name in names]

    def _record(self, asset: str) -> str:
        return f"results/{self.study.name}/assets/{asset}.json"

    def asset(self, name: str) -> list[str]:
        """Params of the rule that records an asset: hash of what the study says of it, and path, size and time of what is there.

        A line on stderr where it is missing; UserError where it is another file than the study names.
        """
        if name not in self._assets_seen:
            say_missing(self.study, self.assets, [name])
            asset = self.study.assets[name]
            self._assets_seen[name] = [digest(asset), state_of(Path(self._record(name)), name, asset, Path(self.assets))]
        return self._assets_seen[name]

    @cached_property
    def _assets_seen(self) -> dict[str, list[str]]:
        return {}

    def encoder_records(self, backbone: str) -> list[str]:
        """What a backbone is made from: all assets of the encoder but those of another backbone."""
        others = self.records(*(f"encoder.{name}" for name in self.study.encoder.backbones if name != backbone))
        return [record for record in self.records("encoder") if record not in others]

    def latents_records(self, encoder: str) -> list[str]:
        """That of the statistics which whiten an encoder variant's latents, where the study names any."""
        return self.records(f"latents.statistics.{encoder}")

    def decoder_records(self, encoder: str) -> list[str]:
        """What the decoder of an encoder variant is made from: published weights, or the networks of its losses."""
        fields = self.study.decoder.assets_of(EncoderRegisters.from_key(encoder).backbone)
        return self.records(*(f"decoder.{field}" for field in fields))

    def config(self, *sections: str) -> str:
        """Hash of the parts of the study that a rule reads (`decoder`, `outlier_statistics.factor`; none named: all of it).

        A param of the rule: Snakemake runs it again when they change.
        """
        parts = {name: to_jsonable_python(places.field(self.study, name)) for name in sections or type(self.study).model_fields}
        return digest(parts if sections or not self.study.denoiser.released else self.study.values())

    def method(self, name: str) -> list[str]:
        """The file of a method, and what it imports beyond what training does, each with a hash of what runs in it."""
        training = STAGES["denoiser"].module
        known = code.sources(training)
        return [f"{file} {value}" for file, value in code.sources(training, method_file(name)).items() if file not in known]


def run_of(config: dict[str, Any]) -> Run:
    """What the rules of one study are made for: the configuration that harness.workflow.targets gives to its module."""
    return Run(places.study_named(config["study"]), config["seeds"], config["methods"], config["assets"])


_said: set[str] = set()


def say_missing(study: Study, root: str, names: Collection[str] | None = None) -> None:
    """A line on stderr for each of the study's assets (or of those `names`) that is not there; the same line once."""
    for line in missing(study, Path(root), names):
        if line not in _said:
            print(f"missing: {line}", file=sys.stderr, flush=True)
            _said.add(line)
