# Images with labels and captions, as a Hugging Face `datasets` folder.


rule data:
    output:
        directory("results/{study}/data"),
    log:
        "results/{study}/logs/data.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=dag.code_hash("harness.data"),
        config=RUN.config("data"),
    message:
        "Data set of {wildcards.study}"
    shell:
        "python -m harness data --study {wildcards.study} --out {output} 2>&1 | tee {log}"
