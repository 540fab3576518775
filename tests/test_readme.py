"""The README shows what the harness does: its table is the committed one, its links lead somewhere, its example runs."""

import re

from harness.denoiser.build import build_denoiser
from harness.results.schema import Row
from harness.study import typed as config
from harness.study.method import load_method

README = (config.ROOT / "README.md").read_text(encoding="utf-8")


def test_table_is_the_committed_one():
    shown = re.search(r"<!-- (reports\S+) -->\n(.*?)\n<!-- end -->", README, re.DOTALL)
    committed = (config.ROOT / shown[1]).read_text(encoding="utf-8")
    assert shown[2] == committed.split("\n", 2)[2].strip()


def test_links_lead_somewhere():
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", README) if not t.startswith("http")]
    assert targets
    assert all((config.ROOT / target).is_file() for target in targets)


def test_the_two_lines_come_first_and_install_alike():
    first, second = README.split("```sh\n")[1].split("\n```")[0].splitlines()
    assert first.endswith("snakemake --cores all reports/table1.md")
    assert second.endswith("pytest -n logical")
    assert first.split(" pip ")[0] == second.split(" pip ")[0]


def test_the_example_method_works(study, tmp_path, monkeypatch):
    example = README.split("```python\n")[1].split("```")[0]
    assert len(example.splitlines()) < 20
    monkeypatch.setattr("harness.study.method.METHODS", tmp_path)
    (tmp_path / "early_registers.py").write_text(example, encoding="utf-8")
    model = build_denoiser(study, "early_registers")
    assert model.register_tokens.shape[1] == 8
    assert not model.register_tokens.any()
    assert load_method("early_registers").encoder.key == "ttr_until_clean"


def test_every_field_of_a_row_is_explained():
    explained = {name for line in README.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert explained >= set(Row.model_fields)
