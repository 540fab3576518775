# Dual-Stage Registers: from images to tables and figures. The stages are in harness/rules/, the studies in harness/studies/,
# the methods in baselines/, the tables and figures in reports/. `snakemake -n` says what would run and why.
import os
import sys
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.utils import min_version

min_version("9.19")

# Methods and specifications lie beside this file, and so does the code, unless it is installed; results are where the run is.
os.environ.update(DSR_PROJECT=str(workflow.basedir))
if Path(workflow.basedir, "harness", "__init__.py").is_file():
    sys.path.insert(0, str(workflow.basedir))

from harness.study.folders import CODE
from harness.workflow import config as settings, start, targets

start.in_utf8()
start.put_own_python_first()
start.put_own_code_first()
start.ask_for_huge_pages()
start.take_over_dead_lock()
start.collect_what_is_new()
RULES = CODE / "harness" / "rules"


configfile: str(RULES / "config.yaml")


settings.check_files(workflow.configfiles, load_configfile)
TARGETS = targets.checked_targets(config)


# Each study has its own rules; those of the configured one bear plain names, the others the study's in front.
for NAME, SETTINGS in TARGETS.modules.items():
    STAGES, PREFIX = f"stages of {NAME}", "" if NAME == TARGETS.run.study.name else f"{NAME}_"

    module:
        name: STAGES
        snakefile:
            RULES / "study.smk"
        config:
            SETTINGS

    use rule * from STAGES as PREFIX*


include: RULES / "report.smk"


onstart:
    start.make_forced_anew(workflow.dag_settings)


rule all:
    default_target: True
    input:
        "reports/table1.md",
        "reports/claims.md",
