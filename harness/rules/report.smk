# Tables and figures. They read rows, never weights, and import no torch.
OWN = TARGETS.run
STUDY, SEEDS, METHODS = OWN.study.name, OWN.seeds, OWN.methods


wildcard_constraints:
    table=rf"(?!(?:table1|{'|'.join(targets.OTHERS)})\.)\w+",
    figure=r"\w+",
    name=r"(?!compute\.)\w+",


rule tables:
    input:
        rows=lambda wildcards: targets.asked(TARGETS.table, wildcards.table).inputs,
        spec="reports/tables/{table}.yaml",
    output:
        md=f"reports/{STUDY}/{{table}}.md",
        csv=f"reports/{STUDY}/{{table}}.csv",
        tex=f"reports/{STUDY}/{{table}}.tex",
    log:
        f"results/{STUDY}/logs/{{table}}.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=dag.code_hash("harness.report.table"),
        data=dag.report_data(),
        config=lambda wildcards: targets.asked(TARGETS.table, wildcards.table).config,
        study=STUDY,
        methods=METHODS,
        seeds=SEEDS,
    message:
        "Table {wildcards.table} of {params.study}"
    shell:
        "python -m harness table --study {params.study} --methods {params.methods} --seeds {params.seeds} --results results/{params.study}"
        " --spec {input.spec} --out {output.md} 2>&1 | tee {log}"


use rule tables as table1 with:
    input:
        rows=OWN.rows(),
        spec="reports/tables/table1.yaml",
    output:
        md=f"reports/{STUDY}/table1.md",
        csv=f"reports/{STUDY}/table1.csv",
        tex=f"reports/{STUDY}/table1.tex",
        rows=f"reports/{STUDY}/rows.parquet",
        times=f"reports/{STUDY}/times.csv",
    log:
        f"results/{STUDY}/logs/table1.log",
    params:
        code=dag.code_hash("harness.report.table"),
        data=dag.report_data(),
        config=OWN.config(),
        study=STUDY,
        methods=METHODS,
        seeds=SEEDS,
    message:
        "Table 1 of {params.study}"


rule figures:
    input:
        lambda wildcards: targets.asked(TARGETS.figure, wildcards.figure).inputs,
    output:
        multiext(f"reports/{STUDY}/{{figure}}", ".png", ".pdf"),
    log:
        f"results/{STUDY}/logs/figure-{{figure}}.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=OWN.study.job.mem_mb,
        runtime=10,
    params:
        code=dag.code_hash("harness.report.figures"),
        config=lambda wildcards: targets.asked(TARGETS.figure, wildcards.figure).config,
        study=STUDY,
        methods=METHODS,
        seeds=SEEDS,
    message:
        "Figure {wildcards.figure} of {params.study}"
    shell:
        "python -m harness figures --study {params.study} --figure {wildcards.figure} --methods {params.methods} --seeds {params.seeds}"
        " --results results/{params.study} --out reports/{params.study} 2>&1 | tee {log}"


rule claims:
    input:
        rows=OWN.rows(),
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
        config=OWN.config(),
        study=STUDY,
        methods=METHODS,
        seeds=SEEDS,
    message:
        "The paper's claims, tested on {params.study}"
    shell:
        "python -m harness claims --study {params.study} --methods {params.methods} --seeds {params.seeds} --results results/{params.study}"
        " --spec {input.spec} --out {output.md} 2>&1 | tee {log}"


rule page:
    input:
        table=rules.table1.output,
        claims=rules.claims.output,
        figures=expand(f"reports/{STUDY}/{{figure}}.png", figure=TARGETS.own_figures),
        spec="reports/tables/table1.yaml",
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
        config=OWN.config(),
        study=STUDY,
        methods=METHODS,
        seeds=SEEDS,
        figures=TARGETS.own_figures,
    message:
        "{output}: Table 1, claims and figures of {params.study} on one page"
    shell:
        "python -m harness page --study {params.study} --methods {params.methods} --seeds {params.seeds} --results results/{params.study}"
        " --tables --figures {params.figures} --out {output} 2>&1 | tee {log}"


rule numbers:
    input:
        expand(f"reports/{STUDY}/{{table}}.csv", table=TARGETS.tables),
    output:
        f"reports/{STUDY}/numbers.tex",
    log:
        f"results/{STUDY}/logs/numbers.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=dag.code_hash("harness.report.numbers"),
        data=dag.report_data(),
        config=OWN.config(),
        study=STUDY,
        methods=METHODS,
        seeds=SEEDS,
        tables=TARGETS.tables,
    message:
        "Every cell of the tables of {params.study} as a LaTeX command"
    shell:
        "python -m harness numbers --study {params.study} --methods {params.methods} --seeds {params.seeds} --tables {params.tables}"
        " --out {output} 2>&1 | tee {log}"


rule everything:
    input:
        tables=expand(f"reports/{STUDY}/{{table}}.md", table=TARGETS.tables),
        claims=rules.claims.output.md,
        numbers=rules.numbers.output,
        figures=expand(f"reports/{STUDY}/{{figure}}.png", figure=TARGETS.figures),
        page=rules.page.output,
    output:
        "reports/all",
    log:
        "results/logs/all.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=dag.code_hash("harness.report.page"),
        data=dag.report_data(),
        study=STUDY,
        methods=METHODS,
        seeds=SEEDS,
        tables=[name for name in TARGETS.tables if name != "table1"],
        figures=TARGETS.figures,
        left_out=TARGETS.left_out,
        listed=lambda wildcards, input: [*input, *TARGETS.left_out],
    message:
        "Every table and figure of {params.study}: on its page, and listed in {output}; what cannot be made, with the reason"
    shell:
        "python -m harness page --study {params.study} --methods {params.methods} --seeds {params.seeds} --results results/{params.study}"
        " --tables {params.tables} --figures {params.figures} --out {input.page} 2>&1 | tee {log} && printf '%s\\n' {params.listed:q} > {output}"


rule gallery:
    input:
        expand(f"reports/{STUDY}/{{figure}}.png", figure=TARGETS.figures),
    output:
        f"reports/reference/{STUDY}/gallery.md",
    log:
        f"results/{STUDY}/logs/gallery.log",
    conda:
        "../../envs/harness.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=dag.code_hash("harness.report.gallery"),
        config=OWN.config(),
        study=STUDY,
    message:
        "The figures of {params.study} that are kept with the code, and the README's section of them"
    shell:
        "python -m harness gallery --study {params.study} --reports reports/{params.study} --out {output} 2>&1 | tee {log}"


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
        page=lambda wildcards: ancient(rules.page.output) if wildcards.name in ("table1", "claims") else [],  # `everything` renders it anew
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
        "{output} is that of {params.study}"
    shell:
        "cp {input.report} {output} 2>&1 | tee {log}"
