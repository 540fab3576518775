"""The stages of the DAG over a study, in this process, with the paths that the rules give them."""

from types import SimpleNamespace

from harness.data import stage as data
from harness.decoder import train as decoder
from harness.denoiser import sample
from harness.denoiser import train as denoiser
from harness.encoder import encode
from harness.evaluation import guidance, maps, outliers, references, scores
from harness.evaluation.clip import make_clip
from harness.evaluation.judge import make_judge
from harness.store import assets
from harness.study.method import EncoderRegisters, load_method
from harness.workflow.dag import Run


class Pipeline:
    """Results of `study` below `root`; `asset_root` is the folder of its assets."""

    def __init__(self, study, root, asset_root=None):
        self.study, self.root, self.asset_root = study, root, asset_root
        self.dag = Run(study, [0], ["baseline"])
        self.data, self.judge, self.clip, self.state = root / "data", root / "judge.safetensors", root / "clip", root / "state"
        self.references, self.records = root / "references.safetensors", root / "assets"
        self.backbones, self.encoders, self.found, self.runs = {}, {}, {}, {}

    def prepare(self, encoders):
        """Everything before the denoiser, for the encoder variants named."""
        study = self.study
        for name in study.assets:
            assets.record(study, name, self.asset_root, self.records / f"{name}.json")
        data.make(study.data, self.data, self.records)
        make_judge(study, data_folder=self.data, assets=self.records, state=self.state, out=self.judge)
        if study.evaluation.clip:
            make_clip(study, data_folder=self.data, assets=self.records, state=self.state, out=self.clip)
        references.make(study, data_folder=self.data, judge=self.judge, assets=self.records, out=self.references)
        for key in encoders:
            self._encoder(key)
        return self

    def _encoder(self, key):
        study, name = self.study, EncoderRegisters.from_key(key).backbone
        if name not in self.backbones:
            self.backbones[name] = self.root / "backbones" / name
            encode.make_backbone(study, name, data_folder=self.data, asset_records=self.records, state=self.state, out=self.backbones[name])
        folder, backbone = self.root / "encoders" / key, self.backbones[name]
        registers = folder / "registers.json" if key.startswith("ttr") else None
        if registers:
            self.found[key] = encode.search(study, key, data_folder=self.data, backbone=backbone, out=registers)
        latents, weights = folder / "latents.safetensors", folder / "decoder.safetensors"
        encode.make(study, data_folder=self.data, backbone=backbone, registers=registers, out=latents)
        if study.has_vit:
            maps.make_encoder(study, data_folder=self.data, backbone=backbone, registers=registers, out=folder / "maps.npz")
        images = {} if study.latents.cache else {"backbone": backbone, "registers": registers}
        if self.dag.decodes_itself:
            weights = backbone
        else:
            decoder.make(
                study,
                key=key,
                data_folder=self.data,
                latents_file=latents,
                asset_records=self.records,
                state=self.state,
                out=weights,
                **images,
            )
        images |= {} if study.latents.cache else {"data_folder": self.data}
        self.encoders[key] = SimpleNamespace(latents=latents, decoder=weights, registers=registers, images=images)

    def run(self, method, seeds):
        """Denoiser, samples, scores, outlier statistics and token maps of a method."""
        study, encoder = self.study, self.encoders[load_method(method).encoder.key]
        folders = [self.root / "runs" / method / f"seed{seed}" for seed in seeds]
        for seed in seeds:
            self.train(method, seed)
        self.draw(method, seeds)
        self.score(method, seeds)
        outliers.measure_runs(
            study,
            method_name=method,
            seeds=seeds,
            denoiser_files=[f / "denoiser.safetensors" for f in folders],
            latents_file=encoder.latents,
            outs=[f / "outliers.json" for f in folders],
        )
        maps.make(
            study,
            method_name=method,
            seed=seeds[0],
            denoiser=folders[0] / "denoiser.safetensors",
            decoder=encoder.decoder,
            latents_file=encoder.latents,
            data_folder=self.data,
            out=folders[0] / "maps.npz",
        )
        self.runs[method] = folders

    def train(self, method, seed):
        encoder, out = self.encoders[load_method(method).encoder.key], self.root / "runs" / method / f"seed{seed}"
        options = {"method_name": method, "seed": seed, "latents_file": encoder.latents, "state": self.state, **encoder.images}
        denoiser.train(self.study, **options, out=out / "denoiser.safetensors")

    def draw(self, method, seeds, folder="", **view):
        """Samples; `view`: guidance or steps, and then in `folder` of the run."""
        encoder = self.encoders[load_method(method).encoder.key]
        for seed in seeds:
            run = self.root / "runs" / method / f"seed{seed}"
            sample.draw(
                self.study,
                method_name=method,
                seed=seed,
                denoiser=run / "denoiser.safetensors",
                decoder=encoder.decoder,
                latents_file=encoder.latents,
                asset_records=self.records,
                state=self.state,
                out=run / folder / "samples.npz",
                **view,
            )

    def score(self, method, seeds, folder="", **view):
        """Scores of what `draw` drew."""
        encoder = self.encoders[load_method(method).encoder.key]
        runs = [self.root / "runs" / method / f"seed{seed}" for seed in seeds]
        scores.score_runs(
            self.study,
            method_name=method,
            seeds=seeds,
            sample_files=[run / folder / "samples.npz" for run in runs],
            denoiser_files=[run / "denoiser.safetensors" for run in runs],
            decoder=encoder.decoder,
            latents_file=encoder.latents,
            data_folder=self.data,
            judge=self.judge,
            clip=self.clip if self.study.evaluation.clip else None,
            references=self.references,
            outs=[run / folder / "scores.json" for run in runs],
            **view,
        )

    def choose_guidance(self, method):
        """Stage `guidance`, with a denoiser of its held-out seed."""
        encoder, seed = self.encoders[load_method(method).encoder.key], self.study.sampling.guidance_search.seed
        self.train(method, seed)
        out = self.root / "runs" / method / "guidance.json"
        guidance.search(
            self.study,
            method_name=method,
            denoiser=out.parent / f"seed{seed}" / "denoiser.safetensors",
            decoder=encoder.decoder,
            latents_file=encoder.latents,
            judge=self.judge,
            references=self.references,
            asset_records=self.records,
            state=self.state,
            out=out,
        )
        return out
