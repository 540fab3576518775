# Dual-Stage Registers: from images to tables and figures. The stages are in harness/rules/, the studies in harness/studies/,
# the methods in baselines/, the tables and figures in reports/. `snakemake -n` says what would run and why.
from snakemake.common.configfile import load_configfile
from snakemake.utils import min_version

min_version("9.19")

from harness.workflow import config as settings, start, targets

start.in_utf8()
start.put_own_python_first()
start.take_over_dead_lock()


configfile: "harness/rules/config.yaml"


settings.check_files(workflow.configfiles, load_configfile)
TARGETS = targets.checked_targets(config)


# Each study has its own rules; those of the configured one bear plain names, the others the study's in front.
for NAME, SETTINGS in TARGETS.modules.items():
    STAGES, PREFIX = f"stages of {NAME}", "" if NAME == TARGETS.run.study.name else f"{NAME}_"

    module:
        name: STAGES
        snakefile:
            "harness/rules/study.smk"
        config:
            SETTINGS

    use rule * from STAGES as PREFIX*


include: "harness/rules/report.smk"


rule all:
    default_target: True
    input:
        "reports/table1.md",
        "reports/claims.md",
