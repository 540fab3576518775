"""The stages of the DAG over a study, in this process, with the paths that the rules give them."""

from types import SimpleNamespace

from harness.data.stage import make_data
from harness.decoder.decode import make_decoder
from harness.denoiser.released import take_released
from harness.denoiser.sample import draw_samples
from harness.denoiser.train import train_denoisers
from harness.encoder.encode import make_encoder, make_latents, search_registers
from harness.evaluation import scores
from harness.evaluation.clip.stage import make_clip
from harness.evaluation.guidance import search_guidance
from harness.evaluation.judge.stage import make_judge
from harness.evaluation.maps import make_encoder_maps, make_maps
from harness.evaluation.outliers import measure_outliers
from harness.evaluation.references import make_references
from harness.store.artifacts import read_json
from harness.store.assets import record_asset
from harness.study.method import EncoderRegisters, load_method
from harness.study.seeds import run_name
from harness.workflow.run import Run


class Pipeline:
    """Results of `study` below `root`; `asset_root` is the folder of its assets."""

    def __init__(self, study, root, asset_root=None):
        self.study, self.root, self.asset_root = study, root, asset_root
        self.dag = Run(study, [0], ["baseline"])
        self.data, self.judge, self.clip, self.state = root / "data", root / "judge.safetensors", root / "clip", root / "state"
        self.references = root / "references.safetensors"
        self.records = {name: root / "assets" / f"{name}.json" for name in study.assets}
        self.backbones, self.encoders, self.searches, self.runs = {}, {}, {}, {}

    def prepare(self, encoders):
        """Everything before the denoiser, for the encoder variants named."""
        study, records = self.study, [*self.records.values()]
        for name in study.assets:
            record_asset(study, name=name, assets=self.asset_root, out=self.records[name])
        make_data(study, records=records, out=self.data)
        make_judge(study, data=self.data, records=records, state=self.state, out=self.judge)
        if study.evaluation.clip:
            make_clip(study, data=self.data, records=records, state=self.state, out=self.clip)
        make_references(study, data=self.data, judge=self.judge, records=records, out=self.references)
        for key in encoders:
            self._encoder(key)
        return self

    def _encoder(self, key):
        study, name = self.study, EncoderRegisters.from_key(key).backbone
        if name not in self.backbones:
            self.backbones[name] = self.root / "backbones" / name
            make_encoder(study, backbone=name, data=self.data, records=[*self.records.values()], state=self.state, out=self.backbones[name])
        folder, backbone = self.root / "encoders" / key, self.backbones[name]
        registers = folder / "registers.json" if key.startswith("ttr") else None
        if registers:
            search_registers(study, encoder=key, data=self.data, backbone=backbone, out=registers)
            self.searches[key] = read_json(registers)
        latents, weights = folder / "latents.safetensors", folder / "decoder.safetensors"
        options = {"data": self.data, "backbone": backbone, "registers": registers, "records": [*self.records.values()]}
        make_latents(study, encoder=key, **options, out=latents)
        if study.encoder.has_tokens:
            make_encoder_maps(study, data=self.data, backbone=backbone, registers=registers, out=folder / "maps.npz")
        images = {} if study.latents.cache else {"backbone": backbone, "registers": registers}
        if self.dag.decodes_itself:
            weights = backbone
        else:
            make_decoder(
                study,
                encoder=key,
                data=self.data,
                latents=latents,
                records=[*self.records.values()],
                state=self.state,
                out=weights,
                **images,
            )
        images |= {} if study.latents.cache else {"data": self.data}
        self.encoders[key] = SimpleNamespace(latents=latents, decoder=weights, registers=registers, images=images)

    def run(self, method, seeds):
        """Denoiser, samples, scores, outlier statistics and token maps of a method."""
        study, encoder = self.study, self.encoders[load_method(method).encoder.key]
        seeds = study.seeds_of(method, seeds)
        folders = [self.root / "runs" / method / run_name(seed) for seed in seeds]
        for seed in seeds:
            self.train(method, seed)
        self.draw(method, seeds)
        self.score(method, seeds)
        measure_outliers(
            study,
            method=method,
            seeds=seeds,
            denoisers=[f / "denoiser.safetensors" for f in folders],
            latents=encoder.latents,
            out=[f / "outliers.json" for f in folders],
        )
        make_maps(
            study,
            method=method,
            seed=seeds[0],
            denoiser=folders[0] / "denoiser.safetensors",
            decoder=encoder.decoder,
            latents=encoder.latents,
            data=self.data,
            out=folders[0] / "maps.npz",
        )
        self.runs[method] = folders

    def train(self, method, seed):
        encoder, out = self.encoders[load_method(method).encoder.key], self.root / "runs" / method / run_name(seed)
        if method in self.study.denoiser.released:
            records, weights = [*self.records.values()], out / "denoiser.safetensors"
            return take_released(self.study, method=method, records=records, latents=encoder.latents, out=weights)
        options = {"method": method, "seeds": [seed], "latents": encoder.latents, "state": self.state, **encoder.images}
        return train_denoisers(self.study, **options, out=[out / "denoiser.safetensors"])

    def draw(self, method, seeds, folder="", **view):
        """Samples; `view`: guidance or steps, and then in `folder` of the run."""
        encoder = self.encoders[load_method(method).encoder.key]
        for seed in seeds:
            run = self.root / "runs" / method / run_name(seed)
            draw_samples(
                self.study,
                method=method,
                seeds=[seed],
                denoisers=[run / "denoiser.safetensors"],
                decoder=encoder.decoder,
                latents=encoder.latents,
                records=[*self.records.values()],
                state=self.state,
                out=[run / folder / "samples.npz"],
                **view,
            )

    def score(self, method, seeds, folder="", **view):
        """Scores of what `draw` drew."""
        encoder = self.encoders[load_method(method).encoder.key]
        runs = [self.root / "runs" / method / run_name(seed) for seed in seeds]
        scores.score_runs(
            self.study,
            method=method,
            seeds=seeds,
            samples=[run / folder / "samples.npz" for run in runs],
            denoisers=[run / "denoiser.safetensors" for run in runs],
            decoder=encoder.decoder,
            latents=encoder.latents,
            data=self.data,
            judge=self.judge,
            clip=self.clip if self.study.evaluation.clip else None,
            references=self.references,
            out=[run / folder / "scores.json" for run in runs],
            **view,
        )

    def choose_guidance(self, method):
        """Stage `guidance`, with a denoiser of its held-out seed."""
        encoder, seed = self.encoders[load_method(method).encoder.key], self.study.sampling.guidance_search.seed
        self.train(method, seed)
        out = self.root / "runs" / method / "guidance.json"
        search_guidance(
            self.study,
            method=method,
            denoiser=out.parent / f"seed{seed}" / "denoiser.safetensors",
            decoder=encoder.decoder,
            latents=encoder.latents,
            judge=self.judge,
            references=self.references,
            records=[*self.records.values()],
            state=self.state,
            out=out,
        )
        return out
