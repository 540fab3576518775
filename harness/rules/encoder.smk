# Everything before the denoiser, shared by all methods with the same encoder: the encoder and its registers, latents, decoder.


def registers(wildcards):
    """The neuron list of an encoder variant with test-time registers; nothing for the others."""
    found = "results/{study}/encoders/{encoder}/registers.json"
    return [found.format(**wildcards)] if wildcards.encoder.startswith("ttr_") else []


def backbone(wildcards):
    return f"results/{wildcards.study}/backbones/{RUN.backbone(wildcards.encoder)}"


rule encoder:
    input:
        data=rules.data.output,
    output:
        directory("results/{study}/backbones/{backbone}"),
    params:
        code=dag.code_hash("harness.train.encoder"),
        config=RUN.config("encoder", "outliers", "planted"),
    log:
        "results/{study}/logs/encoder-{backbone}.log",
    conda:
        "../../envs/harness.yaml"
    threads: RUN.study.threads
    resources:
        mem_mb=1500,
        runtime=60,
    priority: 100
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
    params:
        code=dag.code_hash("harness.encode"),
        config=RUN.config("search", "outlier_statistics"),
    log:
        "results/{study}/logs/registers-{encoder}.log",
    conda:
        "../../envs/harness.yaml"
    threads: RUN.study.threads
    resources:
        mem_mb=1500,
        runtime=30,
    priority: 90
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
    params:
        code=dag.code_hash("harness.encode"),
        config=RUN.config("latents"),
        registers=lambda wildcards, input: f"--registers {input.registers}" if input.registers else "",
    log:
        "results/{study}/logs/latents-{encoder}.log",
    conda:
        "../../envs/harness.yaml"
    threads: RUN.study.threads
    resources:
        mem_mb=1500,
        runtime=30,
    priority: 80
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
    params:
        code=dag.code_hash("harness.train.decoder"),
        config=RUN.config("decoder"),
    log:
        "results/{study}/logs/decoder-{encoder}.log",
    conda:
        "../../envs/harness.yaml"
    threads: RUN.study.threads
    resources:
        mem_mb=1500,
        runtime=60,
    priority: 50
    message:
        "Train the decoder of {wildcards.study}: {wildcards.encoder}"
    shell:
        "python -m harness decoder --study {wildcards.study} --encoder {wildcards.encoder} --data {input.data}"
        " --latents {input.latents} --state results/{wildcards.study}/state --out {output} 2>&1 | tee {log}"
