# The stages of one study, a module of the Snakefile. What a derived study shares with its base is made by the base's module.
include: "common.smk"
include: "data.smk"
include: "encoder.smk"
include: "denoiser.smk"
include: "evaluation.smk"
include: "views.smk"
include: "released.smk"
