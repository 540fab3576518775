# Configuration, checked before any job starts, and the helpers that the rules share.
import os
import sys
from pathlib import Path

from harness import dag

# Rules run `python -m harness`: the interpreter that runs Snakemake, or that of the rule's conda environment.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

RUN = dag.checked_config(config)
STUDY, SEEDS, METHODS = RUN.study.name, RUN.seeds, RUN.methods


wildcard_constraints:
    study="|".join(dag.study_names()),
    method="|".join(METHODS),
    encoder="|".join(RUN.encoders),
    backbone="plain|trained_registers",
    seed=r"\d+",
