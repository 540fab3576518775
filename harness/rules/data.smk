# Images with labels, and the records of what the study's user supplies.


rule asset:
    output:
        "results/{study}/assets/{asset}.json",
    log:
        "results/{study}/logs/asset-{asset}.log",
    priority: 200
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=120,
    params:
        **stage("asset", name="{asset}", config=lambda wildcards: asked(RUN.asset, wildcards.asset)),
    message:
        "Check asset {wildcards.asset} of {wildcards.study}"
    shell:
        SHELL


if RUN.at_home("data"):

    rule data:
        input:
            records=RUN.records("data"),
        output:
            directory("results/{study}/data"),
        log:
            "results/{study}/logs/data.log",
        conda:
            ENV
        threads: 1
        resources:
            mem_mb=JOB["mem_mb"],
            runtime=JOB["runtime"],
        params:
            **stage("data", "data"),
        message:
            "Data set of {wildcards.study}"
        shell:
            SHELL
