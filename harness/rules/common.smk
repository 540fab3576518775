# Configuration, checked before any job starts, and the helpers that the rules share.
from harness import dag

dag.put_own_python_first()
dag.take_over_dead_lock()
RUN = dag.checked_config(config)
STUDY, SEEDS, METHODS = RUN.study.name, RUN.seeds, RUN.methods
JOB = RUN.study.job


wildcard_constraints:
    study=STUDY,
    method="|".join(METHODS),
    encoder="|".join(RUN.encoders),
    backbone="plain|trained_registers",
    asset="|".join(RUN.study.assets) or "none",
    seed=r"\d+",
    name="table1|claims",


def backbone_records(wildcards):
    """Records of the assets that a backbone is made from."""
    return RUN.records(f"encoder.{wildcards.backbone}") or RUN.records("encoder.weights")


def decoder_records(wildcards):
    return RUN.decoder_records(wildcards.encoder)


def registers(wildcards):
    """The neuron list of an encoder variant with test-time registers; nothing for the others."""
    encoder = wildcards.get("encoder") or RUN.encoder(wildcards.method)
    return [f"results/{wildcards.study}/encoders/{encoder}/registers.json"] if encoder.startswith("ttr_") else []


def backbone(wildcards):
    encoder = wildcards.get("encoder") or RUN.encoder(wildcards.method)
    return f"results/{wildcards.study}/backbones/{RUN.backbone(encoder)}"


def images(wildcards):
    """What encoding at every step reads: images, backbone, registers; nothing where the latents are cached."""
    return [] if RUN.caches else [f"results/{wildcards.study}/data", backbone(wildcards), *registers(wildcards)]


def images_options(wildcards):
    """The same as options of a stage."""
    return " ".join(f"--{option} {path}" for option, path in zip(["data", "backbone", "registers"], images(wildcards)))


def encoder_file(name):
    """Input function: a file of the encoder variant that the method uses."""
    return lambda wildcards: f"results/{wildcards.study}/encoders/{RUN.encoder(wildcards.method)}/{name}"


def decoder_file(wildcards):
    """The decoder of the method's encoder variant; a VAE's folder decodes as well."""
    return backbone(wildcards) if RUN.decodes_itself else encoder_file("decoder.safetensors")(wildcards)


def runs(*names):
    """Files of every seed of {study} and {method}."""
    return expand("results/{{study}}/runs/{{method}}/seed{seed}/{name}", seed=SEEDS, name=names)


def run_files(names):
    """Files of the run {study}, {method}, {seed}."""
    return expand("results/{{study}}/runs/{{method}}/seed{{seed}}/{name}", name=names)


def rows(study):
    """Every file that a row of the table comes from."""
    return expand(
        f"results/{study}/runs/{{method}}/seed{{seed}}/{{name}}",
        method=METHODS,
        seed=SEEDS,
        name=["scores.json", *RUN.averages("scores.json"), "outliers.json"],
    )
