# Images with labels, and the records of what the study's user supplies.


rule asset:
    output:
        "results/{study}/assets/{asset}.json",
    log:
        "results/{study}/logs/asset-{asset}.log",
    priority: 200
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=120,
        folder=config["assets"],  # no param: where an asset is does not change what it is
    params:
        code=dag.code_hash("harness.store.assets"),
        config=lambda wildcards: RUN.asset(wildcards.asset),
    message:
        "Check asset {wildcards.asset} of {wildcards.study}"
    shell:
        "python -m harness asset --study {wildcards.study} --name {wildcards.asset} --assets {resources.folder} --out {output} 2>&1 | tee {log}"


if RUN.at_home("data"):

    rule data:
        input:
            records=RUN.records("data"),
        output:
            directory("results/{study}/data"),
        log:
            "results/{study}/logs/data.log",
        conda:
            "../../envs/harness.yaml"
        threads: 1
        resources:
            mem_mb=JOB.mem_mb,
            runtime=JOB.minutes,
        params:
            code=dag.code_hash("harness.data.stage"),
            config=RUN.config("data"),
        message:
            "Data set of {wildcards.study}"
        shell:
            "python -m harness data --study {wildcards.study} --records {input.records} --out {output} 2>&1 | tee {log}"
