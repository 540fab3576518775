"""What methods, studies, tables, figures and claims may be called, and that hidden files are none of them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.report import figure_specs, page, specs
from harness.report.figures import style
from harness.store import code
from harness.study import study as studies
from harness.study.method import load_method, method_names
from harness.study.names import NAME, either
from harness.study.typed import ROOT, UserError
from harness.workflow.targets import check_claims

METHOD = "from harness import Method\n\nMETHOD = Method(title={!r})\n"
SPEC = "title: {}\npanels: [{{title: t, columns: [{{score: fid}}]}}]\n"
BAD = ["ttr+dr", "a b", "ttr(1)", "-x", "a|b", "x'y", "größe", "a$b", "a{b}", "a\nb", "a[1]", "a*", "a\\b"]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Empty folders of methods, studies and tables, each with what macOS, Emacs and Jupyter leave in one."""
    monkeypatch.setattr("harness.study.method.METHODS", tmp_path / "baselines")
    monkeypatch.setattr(studies, "STUDIES", tmp_path / "studies")
    monkeypatch.setattr(specs, "TABLES", tmp_path / "tables")
    for folder, suffix in (("baselines", ".py"), ("studies", ".yaml"), ("tables", ".yaml")):
        leave_hidden_files(tmp_path / folder, suffix)
    (tmp_path / "baselines" / "baseline.py").write_text(METHOD.format("baseline"), encoding="utf-8")
    return tmp_path


def leave_hidden_files(folder, suffix):
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    (folder / ".ipynb_checkpoints" / f"x-checkpoint{suffix}").write_bytes(b"\x00")
    (folder / f"._x{suffix}").write_bytes(b"\x00\x05\x16\x07\x00\xff")
    (folder / f".#x{suffix}").symlink_to("someone@somewhere.1234")
    (folder / f"folder{suffix}").mkdir()


def test_hidden_files_and_folders_are_nobodys(folders):
    (folders / "studies" / "one.yaml").write_text("extends: []", encoding="utf-8")
    (folders / "tables" / "table1.yaml").write_text(SPEC.format("one"), encoding="utf-8")
    assert method_names() == ["baseline"]
    assert studies.study_names() == ["one"]
    assert specs.load_table("table1").title == "one"
    with pytest.raises(UserError, match=r"unknown table '\._x'; known: table1$"):
        specs.load_table("._x")


@pytest.mark.parametrize(
    ("name", "read"), [("010", "10"), ("1e3", "1000.0"), ("1_0", "10"), ("nan", "nan"), ("True", "True"), ("null", "None"), ("0x1f", "31")]
)
def test_a_study_that_snakemake_would_take_for_a_number_a_truth_or_nothing_is_one_line(folders, name, read):
    (folders / "baselines" / f"{name}.py").write_text(METHOD.format(name), encoding="utf-8")
    (folders / "studies" / f"{name}.yaml").write_text("", encoding="utf-8")
    assert name in method_names()  # in a list of --config a text stays one
    with pytest.raises(UserError, match=rf"{name}.yaml: '{name}' cannot name a study: .* it is {read}, not a text; rename it"):
        studies.study_names()


def test_a_study_with_a_number_in_its_name_is_one(folders):
    for name in ("s010", "2024-01-01", "1e3x", "v1.0", "on"):
        (folders / "studies" / f"{name}.yaml").write_text("", encoding="utf-8")
    assert studies.study_names() == ["1e3x", "2024-01-01", "on", "s010", "v1.0"]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_paths_shells_or_wildcards_would_take_for_more_is_one_line_that_names_the_file(folders, name):
    for folder, suffix, names in (("baselines", ".py", method_names), ("studies", ".yaml", studies.study_names)):
        path = folders / folder / f"{name}{suffix}"
        path.write_text("", encoding="utf-8")
        with pytest.raises(UserError, match=f"cannot name a {'method' if suffix == '.py' else 'study'}; rename it") as caught:
            names()
        assert "\n" not in str(caught.value)
        assert str(path).replace("\n", " ") in str(caught.value)
        path.unlink()
    (folders / "tables" / f"{name}.yaml").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot name a table; rename it"):
        specs.load_table("table1")
    file = folders / "x.yaml"
    file.write_text(f"{name!r}: {{title: t, caption: c, needs: []}}".replace("'", '"'), encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.yaml: .* cannot name a figure; rename it|not valid YAML"):
        figure_specs.load_figures(file)
    file.write_text(f"claims: [{{id: {name!r}}}]".replace("'", '"'), encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.yaml: .* cannot name a claim; rename it|not valid YAML"):
        check_claims(file)


def test_of_names_that_are_the_beginning_of_one_another_each_is_matched_alone():
    names = ["a", "a.b", "a-b", "A", "a.b.c", "1"]
    assert all(re.fullmatch(NAME, name) for name in names)
    assert [name for name in [*names, "axb", "ab", "a.b.", "b"] if re.fullmatch(either(names), name)] == names
    assert re.fullmatch(either([]), "none")


def test_a_method_with_a_dot_and_a_dash_has_its_code_hashed_and_its_colour(folders):
    path = folders / "baselines" / "ttr.v2-x.py"
    path.write_text("from baselines import masked\n\n" + METHOD.format("mine"), encoding="utf-8")
    assert load_method("ttr.v2-x").title == "mine"
    assert {"ttr.v2-x.py", "baselines/masked.py"} <= set(code.sources("harness.study.typed", path))
    assert style.colour_of("ttr.v2-x") != style.colour_of("baseline")


def test_an_exported_page_has_its_tables_and_figures_of_any_name():
    html = '<section class="table" id="table-my.own-1" x><figure id="figure-fid"><figure id="figure-my.own-2">'
    assert (page.tables_of(html), page.figures_shown(html)) == (["my.own-1"], ["fid", "my.own-2"])


def test_snakemake_plans_names_with_dots_and_dashes_in_a_folder_with_a_space_and_a_quote(tmp_path):
    """And takes none of them for another: `table1.v2` is not `table1`, nor `ttr.v2-x` a variant of `ttr`."""
    tree = tmp_path / "Ann's copy [1]"
    tracked = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    ).stdout
    for name in filter(None, tracked.split("\0")):
        if name.startswith(
            ("harness/", "baselines/", "profiles/", "envs/", "reports/tables/", "reports/figures", "reports/claims", "Snakefile")
        ):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    for folder, suffix in (("baselines", ".py"), ("harness/studies", ".yaml"), ("reports/tables", ".yaml")):
        leave_hidden_files(tree / folder, suffix)
    (tree / "baselines" / "ttr.v2-x.py").write_text(METHOD.format('+ "mine", Ann\'s {own} $TTR'), encoding="utf-8")
    (tree / "harness" / "studies" / "my-own.v2.yaml").write_text(
        'extends: smoke\ntitle: "Ann\'s {own}, $HOME"\nmethods: null\n', encoding="utf-8"
    )
    (tree / "reports" / "tables" / "table1.v2.yaml").write_text(SPEC.format('Ann\'s "own"'), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "-n", "--config", "study=my-own.v2", "methods=[baseline,ttr.v2-x]", "--"]
    environment = os.environ | {"PYTHONPATH": str(tree), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command += ["reports/table1.v2.md", "reports/table1.md"]
    (tree / "baselines" / "ttr+dr.py").write_text(METHOD.format("mine"), encoding="utf-8")
    done = subprocess.run(command, cwd=tree, capture_output=True, encoding="utf-8", check=False, env=environment)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "ttr+dr" in line] == done.stderr.splitlines()[-1:]
    assert "Traceback" not in done.stdout + done.stderr
    (tree / "baselines" / "ttr+dr.py").unlink()
    done = subprocess.run(command, cwd=tree, capture_output=True, encoding="utf-8", check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    assert [counts[rule] for rule in ("denoiser", "tables", "table1", "configured")] == ["2", "1", "1", "2"]
    assert "results/my-own.v2/runs/ttr.v2-x/seed0/samples.npz" in done.stdout
    assert "Table table1.v2 of my-own.v2" in done.stdout
