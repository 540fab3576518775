# What the rules of one study share. They are a module: `config` is what harness.workflow.targets says of the study, its seeds and its methods.
from harness.workflow import dag

RUN = dag.run_of(config)
STUDY, SEEDS = RUN.study.name, RUN.seeds
JOB = RUN.study.job


wildcard_constraints:
    study=STUDY,
    method="|".join(RUN.methods) or "none",
    encoder="plain|trained_registers|ttr_[a-z0-9_]+",
    backbone="plain|trained_registers",
    asset="|".join(RUN.study.assets) or "none",
    seed=r"\d+",


def encoder_of(wildcards):
    """The encoder variant of a job: its own, or that of its method."""
    return wildcards.get("encoder") or RUN.encoder(wildcards.method)


def backbone(wildcards):
    return RUN.backbone(encoder_of(wildcards))


def registers(wildcards):
    return RUN.registers(encoder_of(wildcards))


def latents(wildcards):
    return RUN.latents(encoder_of(wildcards))


def decoder(wildcards):
    return RUN.decoder(encoder_of(wildcards))


def images(wildcards):
    """What encoding at every step reads: images, backbone, registers; nothing where the latents are cached."""
    return list(RUN.images(encoder_of(wildcards)).values())


def images_options(wildcards):
    """The same as options of a stage."""
    return " ".join(f"--{option} {path}" for option, path in RUN.images(encoder_of(wildcards)).items())


def runs(*names):
    """Files of every seed of {study} and {method}."""
    return expand("results/{{study}}/runs/{{method}}/seed{seed}/{name}", seed=SEEDS, name=names)


def run_files(names):
    """Files of the run {study}, {method}, {seed}."""
    return expand("results/{{study}}/runs/{{method}}/seed{{seed}}/{name}", name=names)
