# Scores and outlier statistics. One job a method takes all its seeds: importing the metric libraries costs more than scoring.


if RUN.at_home("judge"):

    rule judge:
        input:
            data=DATA if RUN.trains_judge else [],
            records=RUN.records("evaluation.judge"),
        output:
            "results/{study}/judge.safetensors",
        log:
            "results/{study}/logs/judge.log",
        conda:
            ENV
        threads: THREADS
        resources:
            **JOB,
        params:
            **stage("judge", "evaluation.judge", "data.image_size"),
        message:
            "The judge of {wildcards.study}, whose features FID, IS, KID, precision and recall use"
        shell:
            SHELL


if RUN.at_home("clip"):

    rule clip:
        input:
            data=DATA if RUN.trains_clip else [],
            records=RUN.records("evaluation.clip"),
        output:
            directory("results/{study}/clip"),
        log:
            "results/{study}/logs/clip.log",
        conda:
            ENV
        threads: THREADS
        resources:
            **JOB,
        params:
            **stage("clip", "evaluation.clip", "data.image_size"),
        message:
            "CLIP model of {wildcards.study}"
        shell:
            SHELL


if RUN.at_home("references"):

    rule references:
        input:
            data=DATA,
            judge=JUDGE,
            records=RUN.records("evaluation.references"),
        output:
            "results/{study}/references.safetensors",
        log:
            "results/{study}/logs/references.log",
        conda:
            ENV
        threads: THREADS
        resources:
            **JOB,
        params:
            **stage("references", "evaluation.references", "evaluation.reconstruction", "evaluation.judge"),
        message:
            "What the samples of {wildcards.study} are compared with"
        shell:
            SHELL


rule scores:
    input:
        samples=runs("samples.npz"),
        denoisers=runs("denoiser.safetensors"),
        averages=runs(*RUN.averages("samples.npz"), *RUN.averages("denoiser.safetensors")),
        decoder=decoder,
        latents=latents,
        data=DATA,
        judge=JUDGE,
        clip=CLIP,
        references=REFERENCES,
    output:
        out=runs("scores.json"),
        averages=runs(*RUN.averages("scores.json")),
    log:
        "results/{study}/logs/scores-{method}.log",
    conda:
        ENV
    threads: THREADS
    resources:
        **JOB,
    params:
        **stage("scores", "evaluation", "sampling.averages", "sampling.eight_bit"),
    message:
        "Scores of {wildcards.study}: {wildcards.method}"
    shell:
        SHELL


rule outliers:
    input:
        denoisers=runs("denoiser.safetensors"),
        latents=latents,
    output:
        out=runs("outliers.json"),
        layers=runs("outliers.parquet"),
    log:
        "results/{study}/logs/outliers-{method}.log",
    conda:
        ENV
    threads: THREADS
    resources:
        **JOB,
    params:
        **stage("outliers", "outlier_statistics"),
    message:
        "Token norms in the encoder and the denoisers of {wildcards.study}: {wildcards.method}"
    shell:
        SHELL


rule maps:
    input:
        denoiser="results/{study}/runs/{method}/seed{seed}/denoiser.safetensors",
        decoder=decoder,
        latents=latents,
        data=DATA,
    output:
        "results/{study}/runs/{method}/seed{seed}/maps.npz",
    log:
        "results/{study}/logs/maps-{method}-seed{seed}.log",
    conda:
        ENV
    threads: THREADS
    resources:
        **JOB,
    params:
        **stage("maps", "outlier_statistics", "sampling.eight_bit", *PREDICTED),
    message:
        "Token maps of the denoiser of {wildcards.study}: {wildcards.method}, seed {wildcards.seed}"
    shell:
        SHELL
