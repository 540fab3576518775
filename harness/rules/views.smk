# Further views of a run: the weights at earlier steps, and guidance chosen with a denoiser of a held-out seed. Made where something shows them.
SEARCH = RUN.study.sampling.guidance_search


if RUN.study.snapshots:

    rule step_samples:
        input:
            denoisers=run_files(RUN.snapshots("denoiser.safetensors")),
            decoder=decoder,
            records=RUN.records("sampling"),
            latents=latents,
        output:
            run_files(RUN.snapshots("samples.npz")),
        log:
            "results/{study}/logs/step_samples-{method}-seed{seed}.log",
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
            "Draw samples of {wildcards.study} at earlier steps: {wildcards.method}, seed {wildcards.seed}"
        shell:
            "{params.harness} samples --study {wildcards.study} --method {wildcards.method} --seed {wildcards.seed} --steps"
            " --denoiser results/{wildcards.study}/runs/{wildcards.method}/seed{wildcards.seed}/denoiser.safetensors"
            " --out results/{wildcards.study}/runs/{wildcards.method}/seed{wildcards.seed}/samples.npz"
            " --decoder {input.decoder} --latents {input.latents}"
            " --records {input.records} --state results/{wildcards.study}/state 2>&1 | tee {log}"

    rule step_scores:
        input:
            samples=runs(*RUN.snapshots("samples.npz")),
            denoisers=runs(*RUN.snapshots("denoiser.safetensors")),
            decoder=decoder,
            latents=latents,
            data=RUN.place("data", "data"),
            judge=RUN.place("judge", "judge.safetensors"),
            clip=RUN.place("clip", "clip") if RUN.has_clip else [],
            references=RUN.place("references", "references.safetensors"),
        output:
            runs(*RUN.snapshots("scores.json")),
        log:
            "results/{study}/logs/step_scores-{method}.log",
        conda:
            "../../envs/harness.yaml"
        threads: JOB.threads
        resources:
            mem_mb=JOB.mem_mb,
            runtime=JOB.minutes,
            gpu=JOB.gpus,
        params:
            code=dag.code_hash("harness.evaluation.scores"),
            config=RUN.config("evaluation"),
            seeds=SEEDS,
            clip=lambda wildcards, input: f"--clip {input.clip}" if input.clip else "",
            samples=runs("samples.npz"),
            denoisers=runs("denoiser.safetensors"),
            scores=runs("scores.json"),
        message:
            "Scores of {wildcards.study} at earlier steps: {wildcards.method}"
        shell:
            "python -m harness scores --study {wildcards.study} --method {wildcards.method} --seeds {params.seeds} --steps"
            " --samples {params.samples} --denoisers {params.denoisers} --decoder {input.decoder} --latents {input.latents} --data {input.data}"
            " --judge {input.judge} --references {input.references} {params.clip} --out {params.scores} 2>&1 | tee {log}"


if SEARCH:

    rule guidance:
        input:
            denoiser=f"results/{{study}}/runs/{{method}}/seed{SEARCH.seed}/denoiser.safetensors",
            decoder=decoder,
            records=RUN.records("sampling"),
            latents=latents,
            judge=RUN.place("judge", "judge.safetensors"),
            references=RUN.place("references", "references.safetensors"),
        output:
            "results/{study}/runs/{method}/guidance.json",
        log:
            "results/{study}/logs/guidance-{method}.log",
        conda:
            "../../envs/harness.yaml"
        threads: JOB.threads
        resources:
            mem_mb=JOB.mem_mb,
            runtime=JOB.minutes,
            gpu=JOB.gpus * JOB.processes,
        params:
            code=dag.code_hash("harness.evaluation.guidance"),
            config=RUN.config("sampling", "denoiser.time_shift", "denoiser.t_min", "denoiser.prediction", "denoiser.noise_scale"),
            harness=RUN.launcher,
        message:
            "Choose the guidance of {wildcards.study}: {wildcards.method}"
        shell:
            "{params.harness} guidance --study {wildcards.study} --method {wildcards.method} --denoiser {input.denoiser}"
            " --decoder {input.decoder} --latents {input.latents} --judge {input.judge} --references {input.references}"
            " --records {input.records} --state results/{wildcards.study}/state --out {output} 2>&1 | tee {log}"

    rule guided_samples:
        input:
            denoiser="results/{study}/runs/{method}/seed{seed}/denoiser.safetensors",
            guidance=rules.guidance.output,
            decoder=decoder,
            records=RUN.records("sampling"),
            latents=latents,
        output:
            "results/{study}/runs/{method}/seed{seed}/guided/samples.npz",
        log:
            "results/{study}/logs/guided_samples-{method}-seed{seed}.log",
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
            "Draw guided samples of {wildcards.study}: {wildcards.method}, seed {wildcards.seed}"
        shell:
            "{params.harness} samples --study {wildcards.study} --method {wildcards.method} --seed {wildcards.seed} --guidance {input.guidance}"
            " --denoiser {input.denoiser} --decoder {input.decoder} --latents {input.latents}"
            " --records {input.records} --state results/{wildcards.study}/state --out {output} 2>&1 | tee {log}"

    rule guided_scores:
        input:
            samples=runs("guided/samples.npz"),
            denoisers=runs("denoiser.safetensors"),
            guidance=rules.guidance.output,
            decoder=decoder,
            latents=latents,
            data=RUN.place("data", "data"),
            judge=RUN.place("judge", "judge.safetensors"),
            clip=RUN.place("clip", "clip") if RUN.has_clip else [],
            references=RUN.place("references", "references.safetensors"),
        output:
            runs("guided/scores.json"),
        log:
            "results/{study}/logs/guided_scores-{method}.log",
        conda:
            "../../envs/harness.yaml"
        threads: JOB.threads
        resources:
            mem_mb=JOB.mem_mb,
            runtime=JOB.minutes,
            gpu=JOB.gpus,
        params:
            code=dag.code_hash("harness.evaluation.scores"),
            config=RUN.config("evaluation", "sampling.guidance_search"),
            seeds=SEEDS,
            clip=lambda wildcards, input: f"--clip {input.clip}" if input.clip else "",
        message:
            "Scores of guided samples of {wildcards.study}: {wildcards.method}"
        shell:
            "python -m harness scores --study {wildcards.study} --method {wildcards.method} --seeds {params.seeds} --guidance {input.guidance}"
            " --samples {input.samples} --denoisers {input.denoisers} --decoder {input.decoder} --latents {input.latents} --data {input.data}"
            " --judge {input.judge} --references {input.references} {params.clip} --out {output} 2>&1 | tee {log}"
