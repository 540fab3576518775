import pytest

from harness.report import specs
from harness.study.study import load_study
from harness.study.typed import UserError
from harness.workflow.run import Run
from harness.workflow.targets import Targets

PANELS = "panels: [{title: t, columns: [{score: fid}]}]\n"


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Writes a table specification into a folder that holds the repository's."""
    for path in specs.TABLES.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(specs, "TABLES", tmp_path)

    def write(name, groups):
        (tmp_path / f"{name}.yaml").write_text(f"title: {name}\ngroups: {groups}\n{PANELS}", encoding="utf-8")

    return write


def targets(study="smoke", methods=("baseline", "dsr"), seeds=(0, 1)):
    return Targets(Run(load_study(study), list(seeds), list(methods)))


def test_a_table_is_made_from_the_rows_of_its_groups(table):
    table("two", "[{methods: [baseline]}, {study: {smoke: smoke_dit_s}, methods: [baseline, dsr-count1-start0]}]")
    planned = targets()
    assert planned.tables[0] == "table1"
    assert "two" in planned.tables
    runs = planned.table("two").runs
    assert [(run.study.name, run.methods, run.seeds) for run in runs] == [
        ("smoke", ["baseline"], [0, 1]),
        ("smoke_dit_s", ["baseline", "dsr-count1-start0"], [0, 1]),
    ]
    assert "results/smoke_dit_s/runs/dsr-count1-start0/seed1/scores.json" in planned.table("two").inputs
    assert "results/smoke/runs/baseline/seed0/outliers.json" in planned.table("two").inputs
    assert not any("smoke/runs/dsr" in path for path in planned.table("two").inputs)


def test_modules_are_those_of_the_studies_shown_and_of_what_they_share(table):
    table("two", "[{study: {digits: digits_dit_s}, methods: [baseline, dsr-count1-start0]}]")
    modules = targets("digits_control").modules
    assert next(iter(modules)) == "digits_control"
    assert modules["digits_dit_s"]["methods"] == ["baseline", "dsr", "dsr-count1-start0"]
    assert "digits" in modules  # its judge
    assert all(module["seeds"] == [0, 1] for module in modules.values())


@pytest.mark.parametrize("study", ["smoke", "imagenet256_jit_h"])
def test_a_guided_column_asks_for_guided_scores_where_the_study_has_a_search(table, study):
    (specs.TABLES / "guided.yaml").write_text("title: g\npanels: [{title: t, columns: [{score: fid, guided: true}]}]\n", encoding="utf-8")
    searched = load_study(study).sampling.guidance_search is not None
    assert any("guided/scores.json" in path for path in targets(study, ["baseline"]).table("guided").inputs) == searched


def test_the_configuration_of_a_table_changes_with_its_studies_methods_and_specification(table):
    table("two", "[{methods: [baseline]}]")
    first = targets().table("two").config
    assert targets().table("two").config == first
    table("two", "[{methods: [baseline, dsr]}]")
    assert targets().table("two").config != first
    table("two", "[{title: a group, methods: [baseline]}]")
    assert targets().table("two").config != first


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("[{methods: [drs]}]", "unknown method 'drs', did you mean 'dsr'"),
        ("[{methods: [ttr-count4-start1]}]", "baselines/ttr.py has no diffusion_registers"),
        ("[{study: {smoke: smok}}]", "unknown study 'smok', did you mean 'smoke'"),
    ],
)
def test_an_unknown_name_in_a_specification_is_one_line(table, groups, message):
    table("two", groups)
    with pytest.raises(UserError, match=message) as caught:
        _ = targets().modules
    assert "two.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("[{study: {digits: digits}}]", "reports/tables/two.yaml names no study for the family 'smoke'"),
        ("[{methods: [baseline, dsr-count4-start99]}]", "table 'two': method 'dsr-count4-start99': diffusion registers start at block 99"),
    ],
)
def test_a_table_that_does_not_fit_the_study_is_refused_only_where_it_is_asked_for(table, groups, message):
    table("two", groups)
    planned = targets()
    assert "two" not in planned.tables
    assert any(line.startswith("left out: table 'two': ") for line in planned.left_out) == (
        "start99" in message
    )  # the other has no such study
    assert next(iter(planned.modules)) == "smoke"
    with pytest.raises(UserError, match=message):
        planned.table("two")


@pytest.mark.parametrize("name", ["fid", "claims", "times"])
def test_a_table_cannot_have_the_name_of_another_file_beside_it(table, name):
    table(name, "[{methods: [baseline]}]")
    with pytest.raises(UserError, match=f"table '{name}': its name is that of a figure or of another file"):
        _ = targets().modules


def test_a_page_has_the_figures_of_the_runs_of_its_table():
    planned = targets("smoke", load_study("smoke").methods)
    assert {"samples", "fid"} <= set(planned.own_figures)
    assert set(planned.own_figures) < set(planned.figures)
    for name in planned.own_figures:
        assert {run.study.name for run in planned.figure(name).runs} == {"smoke"}
