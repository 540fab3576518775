# Methods whose weights are published: the file in place of a training, and then the same stages as of any other run.
if RUN.published:

    rule released:
        input:
            latents=latents,
            records=lambda wildcards: RUN.records(f"denoiser.released.{wildcards.method}"),
        output:
            published("denoiser.safetensors"),
        log:
            "results/{study}/logs/released-{method}.log",
        wildcard_constraints:
            method=either(RUN.published),
        priority: 60
        conda:
            ENV
        threads: THREADS
        resources:
            **JOB,
        params:
            **stage("released", "denoiser", "denoiser.released", "outlier_statistics.images", **METHOD),
        message:
            "Published weights of {wildcards.study}: {wildcards.method}"
        shell:
            SHELL

    use rule samples as published_samples with:
        input:
            denoisers=published("denoiser.safetensors"),
            decoder=decoder,
            records=RUN.records("sampling"),
            latents=latents,
        output:
            published("samples.npz"),
        log:
            "results/{study}/logs/published_samples-{method}.log",
        wildcard_constraints:
            method=either(RUN.published),
        params:
            **stage("samples", *DRAWN, seeds=["published"]),
        message:
            "Draw samples of {wildcards.study} with published weights: {wildcards.method}"

    use rule scores as published_scores with:
        input:
            samples=published("samples.npz"),
            denoisers=published("denoiser.safetensors"),
            decoder=decoder,
            latents=latents,
            data=DATA,
            judge=JUDGE,
            clip=CLIP,
            references=REFERENCES,
        output:
            published("scores.json"),
        log:
            "results/{study}/logs/published_scores-{method}.log",
        wildcard_constraints:
            method=either(RUN.published),
        params:
            **stage("scores", "evaluation", "sampling.eight_bit", seeds=["published"]),
        message:
            "Scores of {wildcards.study}, published weights: {wildcards.method}"

    use rule outliers as published_outliers with:
        input:
            denoisers=published("denoiser.safetensors"),
            latents=latents,
        output:
            out=published("outliers.json"),
            layers=published("outliers.parquet"),
        log:
            "results/{study}/logs/published_outliers-{method}.log",
        wildcard_constraints:
            method=either(RUN.published),
        params:
            **stage("outliers", "outlier_statistics", seeds=["published"]),
        message:
            "Token norms of {wildcards.study}, published weights: {wildcards.method}"

    use rule maps as published_maps with:
        input:
            denoiser="results/{study}/runs/{method}/published/denoiser.safetensors",
            decoder=decoder,
            latents=latents,
            data=DATA,
        output:
            "results/{study}/runs/{method}/published/maps.npz",
        log:
            "results/{study}/logs/published_maps-{method}.log",
        wildcard_constraints:
            method=either(RUN.published),
        params:
            **stage("maps", "outlier_statistics", "sampling.eight_bit", *PREDICTED, seed="published"),
        message:
            "Token maps of the denoiser of {wildcards.study}, published weights: {wildcards.method}"
