# What the rules of one study share. They are a module: `config` is what harness.workflow.targets says of the study, its seeds and its
# methods.
from functools import partial

from harness.study.names import either
from harness.workflow import data_files, rules as shared
from harness.workflow.run import run_of
from harness.workflow.targets import asked

RUN = run_of(config)
STUDY, SEEDS = RUN.study.name, RUN.seeds
THREADS, JOB, TOGETHER = RUN.study.job.threads, shared.resources(RUN), shared.resources(RUN, RUN.study.job.processes)
ENV, SHELL = shared.ENV, shared.SHELL
DATA, JUDGE = RUN.place("data", "data"), RUN.place("judge", "judge.safetensors")
CLIP = RUN.place("clip", "clip") if RUN.has_clip else []
REFERENCES = RUN.place("references", "references.safetensors")
stage = partial(shared.stage, RUN)


wildcard_constraints:
    study=either([STUDY]),
    method=either(RUN.trained),
    encoder="plain|trained_registers|ttr_[a-z0-9_]+",
    backbone="plain|trained_registers",
    asset=either([*RUN.study.assets]),
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


def uncached(part):
    """Of what encoding at every step reads (data, backbone, registers): one part; nothing where the latents are cached."""
    return lambda wildcards: RUN.images(encoder_of(wildcards)).get(part, [])


def runs(*names):
    """Files of every seed of {study} and {method}."""
    return expand("results/{{study}}/runs/{{method}}/seed{seed}/{name}", seed=SEEDS, name=names)


def run_files(names):
    """Files of the run {study}, {method}, {seed}."""
    return expand("results/{{study}}/runs/{{method}}/seed{{seed}}/{name}", name=names)


# On a CPU one job takes all seeds of a method: its start costs as much as a short training, and the denoisers are trained as a stack.
OF_JOB = {} if RUN.together else {"seeds": "{seed}"}
IN_NAME, IN_MESSAGE = ("", "") if RUN.together else ("-seed{seed}", ", seed {wildcards.seed}")


def of_job(names):
    """Files of the runs of one job: of every seed of {study} and {method}, or of one."""
    return runs(*names) if RUN.together else run_files(names)


def published(*names):
    """Files of the only run of {study} and {method}, whose weights are published."""
    return expand("results/{{study}}/runs/{{method}}/published/{name}", name=names)


def kept(files):
    """Outputs of a job of all seeds: those of seeds that are done stay, so that a seed that joins is made alone."""
    return [update(file) for file in files] if RUN.together else files
