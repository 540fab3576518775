"""What a newcomer reads: the README is short, its table is the committed one, links lead somewhere, examples run, every door has a sign."""

import re
import tomllib
from urllib.parse import unquote

import pytest
import yaml
from doors import FOLDERS, PAGES, blocks, links, text_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness.denoiser.build import build_denoiser
from harness.results.schema import Row
from harness.study import typed as config
from harness.study.method import load_method, method_names
from harness.study.study import study_names

ROOT = config.ROOT


def test_the_readme_is_read_to_the_end():
    assert len(text_of("README.md").split()) <= 2500


def test_table_is_the_committed_one():
    shown = re.search(r"<!-- (reports\S+) -->\n(.*?)\n<!-- end -->", text_of("README.md"), re.DOTALL)
    assert shown[2] == text_of(shown[1]).split("\n", 2)[2].strip()


def test_claims_are_the_committed_ones():
    shown = re.search(r"<!-- claims -->\n(.*?)\n<!-- end of claims -->", text_of("reports/README.md"), re.DOTALL)[1]
    lines = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in shown.splitlines()[2:]]
    committed = [line.split("|")[1:] for line in text_of("reports/reference/digits/claims.md").splitlines() if line.startswith("| ")][1:]
    tested = [line for line in lines if not line[1].startswith("**not tested**")]
    assert len(lines) == len(committed) == len(tested) + 1
    assert tested == [(claim.strip(), verdict.strip(), effect.strip(), needed.strip())
                      for claim, verdict, effect, _, needed, *_ in committed if "not tested" not in verdict]  # fmt: skip


def anchors(name):
    """Of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text_of(name), flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for link in links(name):
        place, _, anchor = unquote(link).partition("#")
        target = ((ROOT / name).parent / place).resolve() if place else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.relative_to(ROOT).as_posix()), link


def test_every_page_is_reached_from_the_readme():
    linked = {ROOT / link.partition("#")[0] for link in links("README.md")}
    assert {ROOT / folder / "README.md" for folder in FOLDERS} <= linked


def test_the_two_lines_come_first_and_install_alike():
    first, second = blocks("README.md", "sh")[0].splitlines()
    assert first.endswith("snakemake --cores all reports/table1.md")
    assert second.endswith("pytest -n logical")
    assert first.split(" pip ")[0] == second.split(" pip ")[0]


def test_the_example_method_works(study, tmp_path, monkeypatch):
    (example,) = blocks("README.md", "python")
    assert len(example.splitlines()) < 20
    monkeypatch.setattr("harness.study.method.METHODS", tmp_path)
    (tmp_path / "early_registers.py").write_text(example, encoding="utf-8")
    model = build_denoiser(study, "early_registers")
    assert model.register_tokens.shape[1] == 8
    assert not model.register_tokens.any()
    assert load_method("early_registers").encoder.key == "ttr_until_clean"


def test_the_example_claim_is_one_of_the_claims():
    (example,) = blocks("reports/README.md", "yaml")
    (claim,) = yaml.safe_load(example)
    claims = {one["id"]: one for one in yaml.safe_load(text_of("reports/claims.yaml"))["claims"]}
    assert claim.items() <= claims[claim["id"]].items()


def test_every_field_of_a_row_is_explained():
    table = [line for line in text_of("harness/README.md").splitlines() if line.startswith("| `")]
    assert {name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[1])} >= set(Row.model_fields)


def test_every_method_and_study_is_named():
    table = text_of("baselines/README.md").partition("## Add one")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(method_names())
    page = text_of("harness/studies/README.md")
    named = set(re.findall(r"`(\w+)`", page)) | {f"imagenet256_siglip2_b{end}" for end in re.findall(r"`(_\w+)`", page)}
    named |= {f"imagenet256_siglip2_b_ditdh{end}" for end in re.findall(r"`(_\w+)`", page)}
    assert {name for name in study_names() if not name.startswith("smoke_")} <= named


def test_pins_agree():
    """What pyproject.toml asks for is pinned in constraints.txt, and in harness.yaml alike."""
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", text_of("envs/constraints.txt"), re.MULTILINE)
    conda = [line.split("==") for line in yaml.safe_load(text_of("envs/harness.yaml"))["dependencies"][-1]["pip"]]
    wanted = tomllib.loads(text_of("pyproject.toml"))["project"]["dependencies"]
    assert {(canonicalize_name(name), version) for name, version in conda} <= {(canonicalize_name(name), version) for name, version in pins}
    assert {canonicalize_name(name) for name, _ in conda} == {canonicalize_name(Requirement(line).name) for line in wanted}
