# Tables and figures. They read rows, never weights, and import no torch.


def rows(study):
    """Every file that a row of the table comes from."""
    return expand(f"results/{study}/runs/{{method}}/seed{{seed}}/{{name}}.json", method=METHODS, seed=SEEDS, name=["scores", "outliers"])


def rendered(wildcards):
    return f"reports/{STUDY}/table1.md"


rule table1:
    input:
        rows=rows(STUDY),
        spec="reports/table1.yaml",
    output:
        md=f"reports/{STUDY}/table1.md",
        csv=f"reports/{STUDY}/table1.csv",
        tex=f"reports/{STUDY}/table1.tex",
        times=f"reports/{STUDY}/times.csv",
    params:
        code=dag.code_hash("harness.report.table"),
        config=RUN.config("title", "outliers", "sampling", "outlier_statistics", "planted"),
        methods=METHODS,
        seeds=SEEDS,
    log:
        f"results/{STUDY}/logs/table1.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Table 1 of {STUDY}"
    shell:
        "python -m harness table --study {STUDY} --methods {params.methods} --seeds {params.seeds} --results results/{STUDY}"
        " --spec {input.spec} --out {output.md} 2>&1 | tee {log}"


rule figures:
    input:
        rows=rows(STUDY),
        samples=expand(f"results/{STUDY}/runs/{{method}}/seed{SEEDS[0]}/samples.npz", method=METHODS),
    output:
        expand(f"reports/{STUDY}/{{figure}}.{{kind}}", figure=dag.FIGURES, kind=["png", "pdf"]),
    params:
        code=dag.code_hash("harness.report.figures"),
        methods=METHODS,
        seeds=SEEDS,
    log:
        f"results/{STUDY}/logs/figures.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Figures of {STUDY}"
    shell:
        "python -m harness figures --study {STUDY} --methods {params.methods} --seeds {params.seeds} --results results/{STUDY}"
        " --out reports/{STUDY} 2>&1 | tee {log}"


rule configured_table1:
    input:
        rendered,
        rules.figures.output,
    output:
        "reports/table1.md",
    params:
        study=STUDY,
    log:
        "results/logs/configured_table1.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=100,
        runtime=5,
    localrule: True
    message:
        "reports/table1.md is that of {STUDY}"
    shell:
        "cp {input[0]} {output} 2>&1 | tee {log}"
