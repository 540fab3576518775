# Further views of a run: the weights at earlier steps, and guidance chosen with a denoiser of a held-out seed. Made where something shows
# them.
SEARCH = RUN.study.sampling.guidance_search


if RUN.study.snapshots:

    use rule samples as step_samples with:
        input:
            weights=of_job(RUN.snapshots("denoiser.safetensors")),
            decoder=decoder,
            records=RUN.records("sampling"),
            latents=latents,
        output:
            kept(of_job(RUN.snapshots("samples.npz"))),
        log:
            f"results/{{study}}/logs/step_samples-{{method}}{IN_NAME}.log",
        params:
            **stage(
                "samples",
                *DRAWN,
                **OF_JOB,
                steps=True,
                denoisers=of_job(["denoiser.safetensors"]),
                out=of_job(["samples.npz"]),
            ),
        message:
            f"Draw samples of {{wildcards.study}} at earlier steps: {{wildcards.method}}{IN_MESSAGE}"

    use rule scores as step_scores with:
        input:
            drawn=runs(*RUN.snapshots("samples.npz")),
            weights=runs(*RUN.snapshots("denoiser.safetensors")),
            decoder=decoder,
            latents=latents,
            data=DATA,
            judge=JUDGE,
            clip=CLIP,
            references=REFERENCES,
        output:
            runs(*RUN.snapshots("scores.json")),
        log:
            "results/{study}/logs/step_scores-{method}.log",
        params:
            **stage(
                "scores",
                "evaluation",
                steps=True,
                samples=runs("samples.npz"),
                denoisers=runs("denoiser.safetensors"),
                out=runs("scores.json"),
            ),
        message:
            "Scores of {wildcards.study} at earlier steps: {wildcards.method}"


if SEARCH:
    if RUN.together and SEARCH.seed not in SEEDS:

        use rule denoiser as held_out_denoiser with:
            output:
                out="results/{study}/runs/{method}/seed{seed}/denoiser.safetensors",
                averages=run_files(RUN.other_averages),
                snapshots=run_files(RUN.snapshots("denoiser.safetensors")),
            log:
                "results/{study}/logs/denoiser-{method}-seed{seed}.log",
            wildcard_constraints:
                seed=str(SEARCH.seed),
            params:
                **stage("denoiser", "denoiser", "outlier_statistics.factor", **METHOD, seeds="{seed}"),
            message:
                "Train the denoiser of {wildcards.study} that guidance is chosen with: {wildcards.method}, seed {wildcards.seed}"

    rule guidance:
        input:
            denoiser=f"results/{{study}}/runs/{{method}}/seed{SEARCH.seed}/denoiser.safetensors",
            decoder=decoder,
            records=RUN.records("sampling"),
            latents=latents,
            judge=JUDGE,
            references=REFERENCES,
        output:
            "results/{study}/runs/{method}/guidance.json",
        log:
            "results/{study}/logs/guidance-{method}.log",
        conda:
            ENV
        threads: THREADS
        resources:
            **TOGETHER,
        params:
            **stage("guidance", *DRAWN),
        message:
            "Choose the guidance of {wildcards.study}: {wildcards.method}"
        shell:
            SHELL

    use rule samples as guided_samples with:
        input:
            denoisers=of_job(["denoiser.safetensors"]),
            guidance=rules.guidance.output,
            decoder=decoder,
            records=RUN.records("sampling"),
            latents=latents,
        output:
            kept(of_job(["guided/samples.npz"])),
        log:
            f"results/{{study}}/logs/guided_samples-{{method}}{IN_NAME}.log",
        message:
            f"Draw guided samples of {{wildcards.study}}: {{wildcards.method}}{IN_MESSAGE}"

    use rule scores as guided_scores with:
        input:
            samples=runs("guided/samples.npz"),
            denoisers=runs("denoiser.safetensors"),
            guidance=rules.guidance.output,
            decoder=decoder,
            latents=latents,
            data=DATA,
            judge=JUDGE,
            clip=CLIP,
            references=REFERENCES,
        output:
            runs("guided/scores.json"),
        log:
            "results/{study}/logs/guided_scores-{method}.log",
        params:
            **stage("scores", "evaluation", "sampling.guidance_search"),
        message:
            "Scores of guided samples of {wildcards.study}: {wildcards.method}"
