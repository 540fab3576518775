# Scores and outlier statistics. One job a method takes all its seeds: importing the metric libraries costs more than scoring.


if RUN.at_home("judge"):

    rule judge:
        input:
            data=RUN.place("data", "data") if RUN.trains_judge else [],
            records=RUN.records("evaluation.judge"),
        output:
            "results/{study}/judge.safetensors",
        log:
            "results/{study}/logs/judge.log",
        conda:
            "../../envs/harness.yaml"
        threads: JOB.threads
        resources:
            mem_mb=JOB.mem_mb,
            runtime=JOB.minutes,
            gpu=JOB.gpus,
        params:
            code=dag.code_hash("harness.evaluation.judge"),
            config=RUN.config("evaluation.judge", "data.image_size"),
            data=lambda wildcards, input: f"--data {input.data}" if input.data else "",
        message:
            "The judge of {wildcards.study}, whose features FID, IS, KID, precision and recall use"
        shell:
            "python -m harness judge --study {wildcards.study} {params.data}"
            " --records {input.records} --state results/{wildcards.study}/state --out {output} 2>&1 | tee {log}"


if RUN.at_home("clip"):

    rule clip:
        input:
            data=RUN.place("data", "data") if RUN.trains_clip else [],
            records=RUN.records("evaluation.clip"),
        output:
            directory("results/{study}/clip"),
        log:
            "results/{study}/logs/clip.log",
        conda:
            "../../envs/harness.yaml"
        threads: JOB.threads
        resources:
            mem_mb=JOB.mem_mb,
            runtime=JOB.minutes,
            gpu=JOB.gpus,
        params:
            code=dag.code_hash("harness.evaluation.clip"),
            config=RUN.config("evaluation.clip", "data.image_size"),
            data=lambda wildcards, input: f"--data {input.data}" if input.data else "",
        message:
            "CLIP model of {wildcards.study}"
        shell:
            "python -m harness clip --study {wildcards.study} {params.data}"
            " --records {input.records} --state results/{wildcards.study}/state --out {output} 2>&1 | tee {log}"


if RUN.at_home("references"):

    rule references:
        input:
            data=RUN.place("data", "data"),
            judge=RUN.place("judge", "judge.safetensors"),
            records=RUN.records("evaluation.references"),
        output:
            "results/{study}/references.safetensors",
        log:
            "results/{study}/logs/references.log",
        conda:
            "../../envs/harness.yaml"
        threads: JOB.threads
        resources:
            mem_mb=JOB.mem_mb,
            runtime=JOB.minutes,
            gpu=JOB.gpus,
        params:
            code=dag.code_hash("harness.evaluation.references"),
            config=RUN.config("evaluation.references", "evaluation.reconstruction", "evaluation.judge"),
        message:
            "What the samples of {wildcards.study} are compared with"
        shell:
            "python -m harness references --study {wildcards.study} --data {input.data} --judge {input.judge}"
            " --records {input.records} --out {output} 2>&1 | tee {log}"


rule scores:
    input:
        samples=runs("samples.npz"),
        denoisers=runs("denoiser.safetensors"),
        averages=runs(*RUN.averages("samples.npz"), *RUN.averages("denoiser.safetensors")),
        decoder=decoder,
        latents=latents,
        data=RUN.place("data", "data"),
        judge=RUN.place("judge", "judge.safetensors"),
        clip=RUN.place("clip", "clip") if RUN.has_clip else [],
        references=RUN.place("references", "references.safetensors"),
    output:
        scores=runs("scores.json"),
        averages=runs(*RUN.averages("scores.json")),
    log:
        "results/{study}/logs/scores-{method}.log",
    conda:
        "../../envs/harness.yaml"
    threads: JOB.threads
    resources:
        mem_mb=JOB.mem_mb,
        runtime=JOB.minutes,
        gpu=JOB.gpus,
    params:
        code=dag.code_hash("harness.evaluation.scores"),
        config=RUN.config("evaluation", "sampling.averages"),
        seeds=SEEDS,
        clip=lambda wildcards, input: f"--clip {input.clip}" if input.clip else "",
    message:
        "Scores of {wildcards.study}: {wildcards.method}"
    shell:
        "python -m harness scores --study {wildcards.study} --method {wildcards.method} --seeds {params.seeds}"
        " --samples {input.samples} --denoisers {input.denoisers} --decoder {input.decoder} --latents {input.latents} --data {input.data}"
        " --judge {input.judge} --references {input.references} {params.clip} --out {output.scores} 2>&1 | tee {log}"


rule outliers:
    input:
        denoisers=runs("denoiser.safetensors"),
        latents=latents,
    output:
        json=runs("outliers.json"),
        table=runs("outliers.parquet"),
    log:
        "results/{study}/logs/outliers-{method}.log",
    conda:
        "../../envs/harness.yaml"
    threads: JOB.threads
    resources:
        mem_mb=JOB.mem_mb,
        runtime=JOB.minutes,
        gpu=JOB.gpus,
    params:
        code=dag.code_hash("harness.evaluation.outliers"),
        config=RUN.config("outlier_statistics"),
        seeds=SEEDS,
    message:
        "Token norms in the encoder and the denoisers of {wildcards.study}: {wildcards.method}"
    shell:
        "python -m harness outliers --study {wildcards.study} --method {wildcards.method} --seeds {params.seeds}"
        " --denoisers {input.denoisers} --latents {input.latents} --out {output.json} 2>&1 | tee {log}"


rule maps:
    input:
        denoiser="results/{study}/runs/{method}/seed{seed}/denoiser.safetensors",
        decoder=decoder,
        latents=latents,
        data=RUN.place("data", "data"),
    output:
        "results/{study}/runs/{method}/seed{seed}/maps.npz",
    log:
        "results/{study}/logs/maps-{method}-seed{seed}.log",
    conda:
        "../../envs/harness.yaml"
    threads: JOB.threads
    resources:
        mem_mb=JOB.mem_mb,
        runtime=JOB.minutes,
        gpu=JOB.gpus,
    params:
        code=dag.code_hash("harness.evaluation.maps"),
        config=RUN.config("outlier_statistics", "denoiser.t_min", "denoiser.prediction", "denoiser.noise_scale"),
    message:
        "Token maps of the denoiser of {wildcards.study}: {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python -m harness maps --study {wildcards.study} --method {wildcards.method} --seed {wildcards.seed}"
        " --denoiser {input.denoiser} --decoder {input.decoder} --latents {input.latents} --data {input.data} --out {output} 2>&1 | tee {log}"
