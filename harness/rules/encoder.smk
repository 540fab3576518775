# Everything before the denoiser, shared by all methods with the same encoder: the encoder and its registers, latents, decoder.


rule encoder:
    input:
        data=rules.data.output,
    output:
        directory("results/{study}/backbones/{backbone}"),
    log:
        "results/{study}/logs/encoder-{backbone}.log",
    priority: 100
    conda:
        "../../envs/harness.yaml"
    threads: RUN.study.threads
    resources:
        mem_mb=1500,
        runtime=60,
    params:
        code=dag.code_hash("harness.train.encoder"),
        config=RUN.config("encoder", "outliers", "planted"),
    message:
        "Train the encoder of {wildcards.study}: {wildcards.backbone}"
    shell:
        "python -m harness encoder --study {wildcards.study} --backbone {wildcards.backbone} --data {input.data}"
        " --state results/{wildcards.study}/state --out {output} 2>&1 | tee {log}"


rule registers:
    input:
        data=rules.data.output,
        backbone=backbone,
    output:
        "results/{study}/encoders/{encoder}/registers.json",
    log:
        "results/{study}/logs/registers-{encoder}.log",
    priority: 90
    conda:
        "../../envs/harness.yaml"
    threads: RUN.study.threads
    resources:
        mem_mb=1500,
        runtime=30,
    params:
        code=dag.code_hash("harness.encode"),
        config=RUN.config("search", "outlier_statistics.factor"),
    message:
        "Search for register neurons in {wildcards.study}: {wildcards.encoder}"
    shell:
        "python -m harness registers --study {wildcards.study} --encoder {wildcards.encoder} --data {input.data}"
        " --backbone {input.backbone} --out {output} 2>&1 | tee {log}"


rule latents:
    input:
        data=rules.data.output,
        backbone=backbone,
        registers=registers,
    output:
        "results/{study}/encoders/{encoder}/latents.safetensors",
    log:
        "results/{study}/logs/latents-{encoder}.log",
    priority: 80
    conda:
        "../../envs/harness.yaml"
    threads: RUN.study.threads
    resources:
        mem_mb=1500,
        runtime=30,
    params:
        code=dag.code_hash("harness.encode"),
        config=RUN.config("latents"),
        registers=lambda wildcards, input: f"--registers {input.registers}" if input.registers else "",
    message:
        "Whitened latents of {wildcards.study}: {wildcards.encoder}"
    shell:
        "python -m harness latents --study {wildcards.study} --data {input.data} --backbone {input.backbone}"
        " {params.registers} --out {output} 2>&1 | tee {log}"


rule decoder:
    input:
        data=rules.data.output,
        latents=rules.latents.output,
    output:
        "results/{study}/encoders/{encoder}/decoder.safetensors",
    log:
        "results/{study}/logs/decoder-{encoder}.log",
    priority: 50
    conda:
        "../../envs/harness.yaml"
    threads: RUN.study.threads
    resources:
        mem_mb=1500,
        runtime=60,
    params:
        code=dag.code_hash("harness.train.decoder"),
        config=RUN.config("decoder"),
    message:
        "Train the decoder of {wildcards.study}: {wildcards.encoder}"
    shell:
        "python -m harness decoder --study {wildcards.study} --encoder {wildcards.encoder} --data {input.data}"
        " --latents {input.latents} --state results/{wildcards.study}/state --out {output} 2>&1 | tee {log}"
