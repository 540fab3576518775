# Tables and figures. They read rows, never weights, and import no torch.
from functools import partial

from harness.study.names import NAME
from harness.workflow import data_files, rules as shared

OWN = TARGETS.run
STUDY, REPORTS = OWN.study.name, f"reports/{OWN.study.name}"
ENV, SHELL, LIGHT, SPECS = shared.ENV, shared.SHELL, shared.REPORT, shared.SPECS
rendered = partial(
    shared.stage, OWN, data=data_files.report_data()
)  # the paper's values and the page's template count for all of them


wildcard_constraints:
    table=rf"(?!(?:table1|{'|'.join(targets.OTHERS)})\.\w+$){NAME}",
    figure=rf"(?!(?:{'|'.join(TARGETS.own_figures) or 'none'})\.\w+$){NAME}",
    name=rf"(?!compute\.md$){NAME}",


rule tables:
    input:
        rows=lambda wildcards: targets.asked(TARGETS.table, wildcards.table).inputs,
        spec=f"{SPECS}/tables/{{table}}.yaml",
    output:
        md=f"{REPORTS}/{{table}}.md",
        csv=f"{REPORTS}/{{table}}.csv",
        tex=f"{REPORTS}/{{table}}.tex",
    log:
        f"results/{STUDY}/logs/{{table}}.log",
    conda:
        ENV
    threads: 1
    resources:
        **LIGHT,
    params:
        **rendered("table", config=lambda wildcards: targets.asked(TARGETS.table, wildcards.table).config),
    message:
        f"Table {{wildcards.table}} of {STUDY}"
    shell:
        SHELL


use rule tables as table1 with:
    input:
        rows=OWN.rows(),
        spec=f"{SPECS}/tables/table1.yaml",
    output:
        md=f"{REPORTS}/table1.md",
        csv=f"{REPORTS}/table1.csv",
        tex=f"{REPORTS}/table1.tex",
        rows=f"{REPORTS}/rows.parquet",
        times=f"{REPORTS}/times.csv",
    log:
        f"results/{STUDY}/logs/table1.log",
    params:
        **rendered("table", config=OWN.config()),
    message:
        f"Table 1 of {STUDY}"


rule figures:
    input:
        lambda wildcards: targets.asked(TARGETS.figure, wildcards.figure).inputs,
    output:
        multiext(f"{REPORTS}/{{figure}}", ".png", ".pdf"),
    log:
        f"results/{STUDY}/logs/figure-{{figure}}.log",
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=OWN.study.job.mem_mb,
        runtime=10,
    params:
        **rendered(
            "figures",
            out=REPORTS,
            figures=["{figure}"],
            config=lambda wildcards: targets.asked(TARGETS.figure, wildcards.figure).config,
        ),
    message:
        f"Figure {{wildcards.figure}} of {STUDY}"
    shell:
        SHELL


# What comes with Table 1 is drawn by one job: importing matplotlib and pandas costs more than a figure.
if TARGETS.own_figures:

    use rule figures as own_figures with:
        input:
            TARGETS.inputs_of_own_figures,
        output:
            expand(f"{REPORTS}/{{figure}}.{{suffix}}", figure=TARGETS.own_figures, suffix=["png", "pdf"]),
        log:
            f"results/{STUDY}/logs/own_figures.log",
        params:
            **rendered("figures", out=REPORTS, figures=TARGETS.own_figures, config=TARGETS.config_of_own_figures),
        message:
            f"Figures of {STUDY} beside Table 1"


rule claims:
    input:
        rows=OWN.rows(),
        spec=f"{SPECS}/claims.yaml",
    output:
        md=f"{REPORTS}/claims.md",
        csv=f"{REPORTS}/claims.csv",
    log:
        f"results/{STUDY}/logs/claims.log",
    conda:
        ENV
    threads: 1
    resources:
        **LIGHT,
    params:
        **rendered("claims", config=OWN.config()),
    message:
        f"The paper's claims, tested on {STUDY}"
    shell:
        SHELL


rule page:
    input:
        table=rules.table1.output,
        claims=rules.claims.output,
        pictures=expand(f"{REPORTS}/{{figure}}.png", figure=TARGETS.own_figures),
        spec=f"{SPECS}/tables/table1.yaml",
        claims_spec=f"{SPECS}/claims.yaml",
    output:
        f"{REPORTS}/index.html",
    log:
        f"results/{STUDY}/logs/page.log",
    conda:
        ENV
    threads: 1
    resources:
        **LIGHT,
    params:
        **rendered("page", config=OWN.config(), tables=[], figures=TARGETS.own_figures),
    message:
        f"{{output}}: Table 1, claims and figures of {STUDY} on one page"
    shell:
        SHELL


rule numbers:
    input:
        expand(f"{REPORTS}/{{table}}.csv", table=TARGETS.tables),
    output:
        f"{REPORTS}/numbers.tex",
    log:
        f"results/{STUDY}/logs/numbers.log",
    conda:
        ENV
    threads: 1
    resources:
        **LIGHT,
    params:
        **rendered("numbers", config=OWN.config(), tables=TARGETS.tables),
    message:
        f"Every cell of the tables of {STUDY} as a LaTeX command"
    shell:
        SHELL


rule everything:
    input:
        tables=expand(f"{REPORTS}/{{table}}.md", table=TARGETS.tables),
        claims=rules.claims.output.md,
        numbers=rules.numbers.output,
        pictures=expand(f"{REPORTS}/{{figure}}.png", figure=TARGETS.figures),
        page=rules.page.output,
    output:
        "reports/all",
    log:
        "results/logs/all.log",
    conda:
        ENV
    threads: 1
    resources:
        **LIGHT,
    params:
        **rendered(
            "page",
            tables=[name for name in TARGETS.tables if name != "table1"],
            figures=TARGETS.figures,
            out=rules.page.output[0],
        ),
        listed=lambda wildcards, input: [*input, *TARGETS.left_out],
    message:
        f"Every table and figure of {STUDY}: on its page, and listed in {{output}}; what cannot be made, with the reason"
    shell:
        "{params.command} 2>&1 | tee {log:q} && printf '%s\\n' {params.listed:q} > {output:q}"


rule gallery:
    input:
        expand(f"{REPORTS}/{{figure}}.png", figure=TARGETS.figures),
    output:
        f"reports/reference/{STUDY}/gallery.md",
    log:
        f"results/{STUDY}/logs/gallery.log",
    conda:
        ENV
    threads: 1
    resources:
        **LIGHT,
    params:
        **rendered("gallery", config=OWN.config(), reports=REPORTS),
    message:
        f"The figures of {STUDY} that are kept with the code, and the README's section of them"
    shell:
        SHELL


rule compute:
    output:
        "reports/compute.md",
    log:
        "results/logs/compute.log",
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        **shared.code_of("harness.plan"),
        config=data_files.paper_sizes(),
    message:
        "Parameters, FLOPs and GPU-hours of the paper-scale denoisers, beside the paper's"
    shell:
        "python -m harness compute --out {output:q} 2>&1 | tee {log:q}"


rule configured:
    input:
        report=f"{REPORTS}/{{name}}.md",
        page=lambda wildcards: ancient(rules.page.output) if wildcards.name in ("table1", "claims") else [],  # `everything` renders it anew
    output:
        "reports/{name}.md",
    log:
        "results/logs/configured-{name}.log",
    localrule: True
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=100,
        runtime=5,
    message:
        f"{{output}} is that of {STUDY}"
    shell:
        "cp {input.report:q} {output:q} 2>&1 | tee {log:q}"
