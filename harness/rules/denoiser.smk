# The denoisers of a method, and their samples: a job for each seed, or on a CPU one for all.
PREDICTED = ["denoiser.t_min", "denoiser.prediction", "denoiser.noise_scale"]  # what reads a prediction
DRAWN = ["sampling", "denoiser.time_shift", *PREDICTED]  # what drawing reads
METHOD = {"method_file": lambda wildcards: RUN.method(wildcards.method)}


rule denoiser:
    input:
        latents=latents,
        data=uncached("data"),
        backbone=uncached("backbone"),
        registers=uncached("registers"),
    output:
        out=kept(of_job(["denoiser.safetensors"])),
        averages=kept(of_job(RUN.other_averages)),
        snapshots=kept(of_job(RUN.snapshots("denoiser.safetensors"))),
    log:
        f"results/{{study}}/logs/denoiser-{{method}}{IN_NAME}.log",
    priority: 60
    conda:
        ENV
    threads: THREADS
    resources:
        **TOGETHER,
    params:
        **stage("denoiser", "denoiser", "outlier_statistics.factor", **METHOD, **OF_JOB),
    message:
        f"Train the denoisers of {{wildcards.study}}: {{wildcards.method}}{IN_MESSAGE}"
    shell:
        SHELL


rule samples:
    input:
        denoisers=of_job(["denoiser.safetensors"]),
        averages=of_job(RUN.averages("denoiser.safetensors")),
        decoder=decoder,
        records=RUN.records("sampling"),
        latents=latents,
    output:
        out=kept(of_job(["samples.npz"])),
        averages=kept(of_job(RUN.averages("samples.npz"))),
    log:
        f"results/{{study}}/logs/samples-{{method}}{IN_NAME}.log",
    priority: 40
    conda:
        ENV
    threads: THREADS
    resources:
        **TOGETHER,
    params:
        **stage("samples", *DRAWN, **OF_JOB),
    message:
        f"Draw samples of {{wildcards.study}}: {{wildcards.method}}{IN_MESSAGE}"
    shell:
        SHELL
