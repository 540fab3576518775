# One job a run: a method's denoiser with one seed, and its samples.


rule denoiser:
    input:
        latents=latents,
        images=images,
    output:
        weights="results/{study}/runs/{method}/seed{seed}/denoiser.safetensors",
        averages=run_files(RUN.other_averages),
        snapshots=run_files(RUN.snapshots("denoiser.safetensors")),
    log:
        "results/{study}/logs/denoiser-{method}-seed{seed}.log",
    priority: 60
    conda:
        "../../envs/harness.yaml"
    threads: JOB.threads
    resources:
        mem_mb=JOB.mem_mb,
        runtime=JOB.minutes,
        gpu=JOB.gpus * JOB.processes,
    params:
        code=dag.code_hash("harness.denoiser.train"),
        config=RUN.config("denoiser", "outlier_statistics.factor"),
        method=lambda wildcards: RUN.method(wildcards.method),
        images=images_options,
        harness=RUN.launcher,
    message:
        "Train the denoiser of {wildcards.study}: {wildcards.method}, seed {wildcards.seed}"
    shell:
        "{params.harness} denoiser --study {wildcards.study} --method {wildcards.method} --seed {wildcards.seed}"
        " --latents {input.latents} {params.images} --state results/{wildcards.study}/state --out {output.weights} 2>&1 | tee {log}"


rule samples:
    input:
        denoiser=rules.denoiser.output.weights,
        averages=run_files(RUN.averages("denoiser.safetensors")),
        decoder=decoder,
        records=RUN.records("sampling"),
        latents=latents,
    output:
        samples="results/{study}/runs/{method}/seed{seed}/samples.npz",
        averages=run_files(RUN.averages("samples.npz")),
    log:
        "results/{study}/logs/samples-{method}-seed{seed}.log",
    priority: 40
    conda:
        "../../envs/harness.yaml"
    threads: JOB.threads
    resources:
        mem_mb=JOB.mem_mb,
        runtime=JOB.minutes,
        gpu=JOB.gpus * JOB.processes,
    params:
        code=dag.code_hash("harness.denoiser.sample"),
        config=RUN.config("sampling", "denoiser.time_shift", "denoiser.t_min", "denoiser.prediction", "denoiser.noise_scale"),
        harness=RUN.launcher,
    message:
        "Draw samples of {wildcards.study}: {wildcards.method}, seed {wildcards.seed}"
    shell:
        "{params.harness} samples --study {wildcards.study} --method {wildcards.method} --seed {wildcards.seed}"
        " --denoiser {input.denoiser} --decoder {input.decoder} --latents {input.latents}"
        " --records {input.records} --state results/{wildcards.study}/state --out {output.samples} 2>&1 | tee {log}"
