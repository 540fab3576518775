# Everything before the denoiser, shared by all methods with the same encoder: the encoder and its registers, latents, decoder.


if RUN.at_home("encoder"):

    rule encoder:
        input:
            data=RUN.place("data", "data"),
            records=lambda wildcards: RUN.records(f"encoder.{wildcards.backbone}") or RUN.records("encoder.weights"),
        output:
            directory("results/{study}/backbones/{backbone}"),
        log:
            "results/{study}/logs/encoder-{backbone}.log",
        priority: 100
        conda:
            "../../envs/harness.yaml"
        threads: JOB.threads
        resources:
            mem_mb=JOB.mem_mb,
            runtime=JOB.minutes,
            gpu=JOB.gpus,
        params:
            code=dag.code_hash("harness.encoder.encode"),
            config=RUN.config("encoder", "outliers", "planted"),
        message:
            "Encoder of {wildcards.study}: {wildcards.backbone}"
        shell:
            "python -m harness encoder --study {wildcards.study} --backbone {wildcards.backbone} --data {input.data}"
            " --records {input.records} --state results/{wildcards.study}/state --out {output} 2>&1 | tee {log}"

    rule registers:
        input:
            data=RUN.place("data", "data"),
            backbone=backbone,
        output:
            "results/{study}/encoders/{encoder}/registers.json",
        log:
            "results/{study}/logs/registers-{encoder}.log",
        priority: 90
        conda:
            "../../envs/harness.yaml"
        threads: JOB.threads
        resources:
            mem_mb=JOB.mem_mb,
            runtime=JOB.minutes,
            gpu=JOB.gpus,
        params:
            code=dag.code_hash("harness.encoder.encode"),
            config=RUN.config("search", "outlier_statistics.factor"),
            lists=dag.published_neurons(),
        message:
            "Search for register neurons in {wildcards.study}: {wildcards.encoder}"
        shell:
            "python -m harness registers --study {wildcards.study} --encoder {wildcards.encoder} --data {input.data}"
            " --backbone {input.backbone} --out {output} 2>&1 | tee {log}"

    rule latents:
        input:
            data=RUN.place("data", "data"),
            backbone=backbone,
            registers=registers,
        output:
            "results/{study}/encoders/{encoder}/latents.safetensors",
        log:
            "results/{study}/logs/latents-{encoder}.log",
        priority: 80
        conda:
            "../../envs/harness.yaml"
        threads: JOB.threads
        resources:
            mem_mb=JOB.mem_mb,
            runtime=JOB.minutes,
            gpu=JOB.gpus,
        params:
            code=dag.code_hash("harness.encoder.encode"),
            config=RUN.config("latents", "search.variant"),
            registers=lambda wildcards, input: f"--registers {input.registers}" if input.registers else "",
        message:
            "Whitened latents of {wildcards.study}: {wildcards.encoder}"
        shell:
            "python -m harness latents --study {wildcards.study} --data {input.data} --backbone {input.backbone}"
            " {params.registers} --out {output} 2>&1 | tee {log}"

    rule encoder_maps:
        input:
            data=RUN.place("data", "data"),
            backbone=backbone,
            registers=registers,
        output:
            "results/{study}/encoders/{encoder}/maps.npz",
        log:
            "results/{study}/logs/encoder_maps-{encoder}.log",
        conda:
            "../../envs/harness.yaml"
        threads: JOB.threads
        resources:
            mem_mb=JOB.mem_mb,
            runtime=JOB.minutes,
            gpu=JOB.gpus,
        params:
            code=dag.code_hash("harness.evaluation.maps"),
            config=RUN.config("outlier_statistics.images", "outlier_statistics.factor", "search.variant"),
            registers=lambda wildcards, input: f"--registers {input.registers}" if input.registers else "",
        message:
            "Token maps of the encoder of {wildcards.study}: {wildcards.encoder}"
        shell:
            "python -m harness encoder_maps --study {wildcards.study} --data {input.data} --backbone {input.backbone}"
            " {params.registers} --out {output} 2>&1 | tee {log}"


if RUN.at_home("decoder"):

    rule decoder:
        input:
            data=RUN.place("data", "data"),
            latents=latents,
            images=images,
            records=lambda wildcards: RUN.decoder_records(wildcards.encoder),
        output:
            "results/{study}/encoders/{encoder}/decoder.safetensors",
        log:
            "results/{study}/logs/decoder-{encoder}.log",
        priority: 50
        conda:
            "../../envs/harness.yaml"
        threads: JOB.threads
        resources:
            mem_mb=JOB.mem_mb,
            runtime=JOB.minutes,
            gpu=JOB.gpus,
        params:
            code=dag.code_hash("harness.decoder.train"),
            config=RUN.config("decoder"),
            images=images_options,
        message:
            "Decoder of {wildcards.study}: {wildcards.encoder}"
        shell:
            "python -m harness decoder --study {wildcards.study} --encoder {wildcards.encoder} --latents {input.latents} --data {input.data} {params.images}"
            " --records {input.records} --state results/{wildcards.study}/state --out {output} 2>&1 | tee {log}"
