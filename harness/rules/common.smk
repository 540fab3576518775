# Configuration, checked before any job starts, and the helpers that the rules share.
from harness import dag

dag.put_own_python_first()
RUN = dag.checked_config(config)
STUDY, SEEDS, METHODS = RUN.study.name, RUN.seeds, RUN.methods


wildcard_constraints:
    study=STUDY,
    method="|".join(METHODS),
    encoder="|".join(RUN.encoders),
    backbone="plain|trained_registers",
    seed=r"\d+",


def registers(wildcards):
    """The neuron list of an encoder variant with test-time registers; nothing for the others."""
    found = "results/{study}/encoders/{encoder}/registers.json"
    return [found.format(**wildcards)] if wildcards.encoder.startswith("ttr_") else []


def backbone(wildcards):
    return f"results/{wildcards.study}/backbones/{RUN.backbone(wildcards.encoder)}"


def encoder_file(name):
    """Input function: a file of the encoder variant that the method uses."""
    return lambda wildcards: f"results/{wildcards.study}/encoders/{RUN.encoder(wildcards.method)}/{name}"


def runs(name):
    """A file of every seed of {study} and {method}."""
    return expand("results/{{study}}/runs/{{method}}/seed{seed}/{name}", seed=SEEDS, name=name)


def rows(study):
    """Every file that a row of the table comes from."""
    return expand(
        f"results/{study}/runs/{{method}}/seed{{seed}}/{{name}}.json", method=METHODS, seed=SEEDS, name=["scores", "outliers"]
    )
