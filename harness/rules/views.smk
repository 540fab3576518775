# Further views of a run: the weights at earlier steps, and guidance chosen with a denoiser of a held-out seed. Made where something shows
# them.
SEARCH = RUN.study.sampling.guidance_search


if RUN.study.snapshots:

    use rule samples as step_samples with:
        input:
            denoisers=run_files(RUN.snapshots("denoiser.safetensors")),
            decoder=decoder,
            records=RUN.records("sampling"),
            latents=latents,
        output:
            run_files(RUN.snapshots("samples.npz")),
        log:
            "results/{study}/logs/step_samples-{method}-seed{seed}.log",
        params:
            **stage("samples", *DRAWN, steps=True, denoiser=rules.denoiser.output.out, out=rules.samples.output.out),
        message:
            "Draw samples of {wildcards.study} at earlier steps: {wildcards.method}, seed {wildcards.seed}"

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
            denoiser=rules.denoiser.output.out,
            guidance=rules.guidance.output,
            decoder=decoder,
            records=RUN.records("sampling"),
            latents=latents,
        output:
            "results/{study}/runs/{method}/seed{seed}/guided/samples.npz",
        log:
            "results/{study}/logs/guided_samples-{method}-seed{seed}.log",
        message:
            "Draw guided samples of {wildcards.study}: {wildcards.method}, seed {wildcards.seed}"

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
