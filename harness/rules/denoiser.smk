# One job a run: a method's denoiser with one seed, and its samples.


rule denoiser:
    input:
        latents=encoder_file("latents.safetensors"),
    output:
        "results/{study}/runs/{method}/seed{seed}/denoiser.safetensors",
    log:
        "results/{study}/logs/denoiser-{method}-seed{seed}.log",
    priority: 60
    conda:
        "../../envs/harness.yaml"
    threads: RUN.study.threads
    resources:
        mem_mb=1500,
        runtime=120,
    params:
        code=dag.code_hash("harness.train.denoiser"),
        config=RUN.config("denoiser", "outlier_statistics.factor"),
        method=lambda wildcards: RUN.method(wildcards.method),
    message:
        "Train the denoiser of {wildcards.study}: {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python -m harness denoiser --study {wildcards.study} --method {wildcards.method} --seed {wildcards.seed}"
        " --latents {input.latents} --state results/{wildcards.study}/state --out {output} 2>&1 | tee {log}"


rule samples:
    input:
        denoiser=rules.denoiser.output,
        decoder=encoder_file("decoder.safetensors"),
        latents=encoder_file("latents.safetensors"),
    output:
        "results/{study}/runs/{method}/seed{seed}/samples.npz",
    log:
        "results/{study}/logs/samples-{method}-seed{seed}.log",
    priority: 40
    conda:
        "../../envs/harness.yaml"
    threads: RUN.study.threads
    resources:
        mem_mb=1500,
        runtime=60,
    params:
        code=dag.code_hash("harness.sample"),
        config=RUN.config("sampling", "denoiser.time_shift", "denoiser.t_min"),
    message:
        "Draw samples of {wildcards.study}: {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python -m harness samples --study {wildcards.study} --method {wildcards.method} --seed {wildcards.seed}"
        " --denoiser {input.denoiser} --decoder {input.decoder} --latents {input.latents} --out {output} 2>&1 | tee {log}"
