# Everything before the denoiser, shared by all methods with the same encoder: the encoder and its registers, latents, decoder.
ENCODED = {"data": DATA, "backbone": backbone, "registers": registers}


if RUN.at_home("encoder"):

    rule encoder:
        input:
            data=DATA,
            records=lambda wildcards: RUN.encoder_records(wildcards.backbone),
        output:
            directory("results/{study}/backbones/{backbone}"),
        log:
            "results/{study}/logs/encoder-{backbone}.log",
        priority: 100
        conda:
            ENV
        threads: THREADS
        resources:
            **JOB,
        params:
            **stage("encoder", "encoder", "outliers", "planted"),
        message:
            "Encoder of {wildcards.study}: {wildcards.backbone}"
        shell:
            SHELL

    rule registers:
        input:
            data=DATA,
            backbone=backbone,
        output:
            "results/{study}/encoders/{encoder}/registers.json",
        log:
            "results/{study}/logs/registers-{encoder}.log",
        priority: 90
        conda:
            ENV
        threads: THREADS
        resources:
            **JOB,
        params:
            **stage("registers", "search", "outlier_statistics.factor", lists=data_files.published_neurons()),
        message:
            "Search for register neurons in {wildcards.study}: {wildcards.encoder}"
        shell:
            SHELL

    rule latents:
        input:
            **ENCODED,
            records=lambda wildcards: RUN.latents_records(wildcards.encoder),
        output:
            "results/{study}/encoders/{encoder}/latents.safetensors",
        log:
            "results/{study}/logs/latents-{encoder}.log",
        priority: 80
        conda:
            ENV
        threads: THREADS
        resources:
            **JOB,
        params:
            **stage("latents", "latents", "search.variant"),
        message:
            "Whitened latents of {wildcards.study}: {wildcards.encoder}"
        shell:
            SHELL

    use rule latents as encoder_maps with:
        input:
            **ENCODED,
        output:
            "results/{study}/encoders/{encoder}/maps.npz",
        log:
            "results/{study}/logs/encoder_maps-{encoder}.log",
        priority: 0
        params:
            **stage("encoder_maps", "outlier_statistics.images", "outlier_statistics.factor", "search.variant"),
        message:
            "Token maps of the encoder of {wildcards.study}: {wildcards.encoder}"


if RUN.at_home("decoder"):

    rule decoder:
        input:
            data=DATA,
            latents=latents,
            backbone=uncached("backbone"),
            registers=uncached("registers"),
            records=lambda wildcards: RUN.decoder_records(wildcards.encoder),
        output:
            "results/{study}/encoders/{encoder}/decoder.safetensors",
        log:
            "results/{study}/logs/decoder-{encoder}.log",
        priority: 50
        conda:
            ENV
        threads: THREADS
        resources:
            **JOB,
        params:
            **stage("decoder", "decoder"),
        message:
            "Decoder of {wildcards.study}: {wildcards.encoder}"
        shell:
            SHELL
