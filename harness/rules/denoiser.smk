# One job a run: a method's denoiser with one seed, and its samples.
PREDICTED = ["denoiser.t_min", "denoiser.prediction", "denoiser.noise_scale"]  # what reads a prediction
DRAWN = ["sampling", "denoiser.time_shift", *PREDICTED]  # what drawing reads


rule denoiser:
    input:
        latents=latents,
        data=uncached("data"),
        backbone=uncached("backbone"),
        registers=uncached("registers"),
    output:
        out="results/{study}/runs/{method}/seed{seed}/denoiser.safetensors",
        averages=run_files(RUN.other_averages),
        snapshots=run_files(RUN.snapshots("denoiser.safetensors")),
    log:
        "results/{study}/logs/denoiser-{method}-seed{seed}.log",
    priority: 60
    conda:
        ENV
    threads: THREADS
    resources:
        **TOGETHER,
    params:
        **stage("denoiser", "denoiser", "outlier_statistics.factor", method_file=lambda wildcards: RUN.method(wildcards.method)),
    message:
        "Train the denoiser of {wildcards.study}: {wildcards.method}, seed {wildcards.seed}"
    shell:
        SHELL


rule samples:
    input:
        denoiser=rules.denoiser.output.out,
        averages=run_files(RUN.averages("denoiser.safetensors")),
        decoder=decoder,
        records=RUN.records("sampling"),
        latents=latents,
    output:
        out="results/{study}/runs/{method}/seed{seed}/samples.npz",
        averages=run_files(RUN.averages("samples.npz")),
    log:
        "results/{study}/logs/samples-{method}-seed{seed}.log",
    priority: 40
    conda:
        ENV
    threads: THREADS
    resources:
        **TOGETHER,
    params:
        **stage("samples", *DRAWN),
    message:
        "Draw samples of {wildcards.study}: {wildcards.method}, seed {wildcards.seed}"
    shell:
        SHELL
