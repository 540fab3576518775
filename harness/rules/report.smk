# Tables and figures. They read rows, never weights, and import no torch.


rule table1:
    input:
        rows=rows(STUDY),
        spec="reports/table1.yaml",
    output:
        md=f"reports/{STUDY}/table1.md",
        csv=f"reports/{STUDY}/table1.csv",
        tex=f"reports/{STUDY}/table1.tex",
        rows=f"reports/{STUDY}/rows.parquet",
        times=f"reports/{STUDY}/times.csv",
    log:
        f"results/{STUDY}/logs/table1.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=dag.code_hash("harness.report.table"),
        data=dag.report_data(),
        config=RUN.config(),
        study=STUDY,
        methods=METHODS,
        seeds=SEEDS,
    message:
        "Table 1 of {STUDY}"
    shell:
        "python -m harness table --study {params.study} --methods {params.methods} --seeds {params.seeds} --results results/{params.study}"
        " --spec {input.spec} --out {output.md} 2>&1 | tee {log}"


rule figures:
    input:
        rows=rows(STUDY),
        samples=expand(f"results/{STUDY}/runs/{{method}}/seed{SEEDS[0]}/samples.npz", method=METHODS),
    output:
        expand(f"reports/{STUDY}/{{figure}}.{{kind}}", figure=dag.figures_of(RUN.study), kind=["png", "pdf"]),
    log:
        f"results/{STUDY}/logs/figures.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=JOB.mem_mb,
        runtime=10,
    params:
        code=dag.code_hash("harness.report.figures"),
        config=RUN.config(),
        study=STUDY,
        methods=METHODS,
        seeds=SEEDS,
    message:
        "Figures of {STUDY}"
    shell:
        "python -m harness figures --study {params.study} --methods {params.methods} --seeds {params.seeds} --results results/{params.study}"
        " --out reports/{params.study} 2>&1 | tee {log}"


rule claims:
    input:
        rows=rows(STUDY),
        spec="reports/claims.yaml",
    output:
        md=f"reports/{STUDY}/claims.md",
        csv=f"reports/{STUDY}/claims.csv",
    log:
        f"results/{STUDY}/logs/claims.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=dag.code_hash("harness.report.claims"),
        data=dag.report_data(),
        config=RUN.config(),
        study=STUDY,
        methods=METHODS,
        seeds=SEEDS,
    message:
        "The paper's claims, tested on {STUDY}"
    shell:
        "python -m harness claims --study {params.study} --methods {params.methods} --seeds {params.seeds} --results results/{params.study}"
        " --spec {input.spec} --out {output.md} 2>&1 | tee {log}"


rule page:
    input:
        table=rules.table1.output,
        claims=rules.claims.output,
        figures=rules.figures.output,
        spec="reports/table1.yaml",
        claims_spec="reports/claims.yaml",
    output:
        f"reports/{STUDY}/index.html",
    log:
        f"results/{STUDY}/logs/page.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=dag.code_hash("harness.report.page"),
        data=dag.report_data(),
        config=RUN.config(),
        study=STUDY,
        methods=METHODS,
        seeds=SEEDS,
    message:
        "{output}: tables, claims and figures of {STUDY} on one page"
    shell:
        "python -m harness page --study {params.study} --methods {params.methods} --seeds {params.seeds} --results results/{params.study}"
        " --out {output} 2>&1 | tee {log}"


rule compute:
    output:
        "reports/compute.md",
    log:
        "results/logs/compute.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=dag.code_hash("harness.plan"),
        config=dag.paper_sizes(),
    message:
        "Parameters, FLOPs and GPU-hours of the paper-scale denoisers, beside the paper's"
    shell:
        "python -m harness compute --out {output} 2>&1 | tee {log}"


rule configured:
    input:
        report=f"reports/{STUDY}/{{name}}.md",
        page=rules.page.output,
    output:
        "reports/{name}.md",
    log:
        "results/logs/configured-{name}.log",
    localrule: True
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=100,
        runtime=5,
    params:
        study=STUDY,
    message:
        "{output} is that of {STUDY}"
    shell:
        "cp {input.report} {output} 2>&1 | tee {log}"
