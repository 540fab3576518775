# Dual-Stage Registers: from images to Table 1. The stages are in harness/rules/, the studies in harness/studies/,
# the methods in baselines/. `snakemake -n` says what would run and why.
from snakemake.utils import min_version

min_version("9.19")


configfile: "harness/rules/config.yaml"


include: "harness/rules/common.smk"
include: "harness/rules/data.smk"
include: "harness/rules/encoder.smk"
include: "harness/rules/denoiser.smk"
include: "harness/rules/evaluation.smk"
include: "harness/rules/report.smk"


rule all:
    default_target: True
    input:
        "reports/table1.md",
        "reports/claims.md",
