"""The zip: whole, the same twice, without anybody's paths, checked by making everything anew; a spoiled one is one line."""

import getpass
import hashlib
import json
import shutil
import socket
import zipfile
from pathlib import Path

import pytest
from conftest import METHODS, SEEDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.report import rows as row_files
from harness.report.archive import MANIFEST, RENDERED, as_json, export_study, pack, unpack, verify_export
from harness.report.claims import render_claims
from harness.report.page import render_page
from harness.report.table import render_table
from harness.store import artifacts
from harness.study.study import parse_study
from harness.study.typed import ROOT, UserError


@pytest.fixture(scope="module")
def reports(study, runs, tmp_path_factory):
    """The tiny study's rendered reports."""
    folder = tmp_path_factory.mktemp("reports")
    where = {"methods": METHODS, "seeds": SEEDS, "results": runs.root}
    render_table(study, spec=ROOT / "reports" / "tables" / "table1.yaml", out=folder / "table1.md", **where)
    render_claims(study, spec=ROOT / "reports" / "claims.yaml", out=folder / "claims.md", **where)
    (folder / "fid.png").write_bytes(b"\x89PNG a figure")
    render_page(study, out=folder / "index.html", **where)
    return folder


@pytest.fixture(scope="module")
def exported(study, runs, reports, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out.zip"
    export_study(study, reports=reports, results=runs.root, out=out)
    return out


@pytest.fixture(scope="module")
def members(exported):
    with zipfile.ZipFile(exported) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path, members, *, honest=True):
    """A zip of `members`; honest: with a manifest that fits them."""
    if honest:
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in members.items() if name != MANIFEST}
        members = members | {MANIFEST: as_json(hashes)}
    pack(path, members)
    return path


def test_an_export_verifies(exported):
    text, problems = verify_export(exported)
    assert problems == []
    assert text.startswith(f"verified: {exported}: ")
    assert "study 'tiny'" in text


def test_it_holds_what_an_appendix_needs(study, runs, members):
    assert {f"reports/{name}" for name in RENDERED} | {"reports/rows.parquet", "reports/fid.png", "README.txt", "constraints.txt"} <= set(
        members
    )
    assert {f"methods/{name}.py" for name in METHODS} <= set(members)
    values = json.loads(members["study.json"])
    assert parse_study(values.pop("name"), values) == study
    assert json.loads(members["environment.json"])["distributions"]["torch"]
    for method in METHODS:
        for seed in SEEDS:
            sha256 = artifacts.sha256(runs.root / "runs" / method / f"seed{seed}" / "samples.npz")
            assert f"runs/{method}/seed{seed}/samples.npz,{method},{seed},{sha256}\n" in members["samples.csv"].decode()
    record = json.loads(members["records/runs/dsr/seed0/scores.json.meta.json"])
    assert record["inputs"]["data"] == artifacts.sha256(runs.root / "data")
    assert not [name for name in members if name.endswith((".npz", ".safetensors"))]


def test_the_same_study_gives_the_same_bytes(study, runs, reports, exported, tmp_path):
    export_study(study, reports=reports, results=runs.root, out=tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == exported.read_bytes()


def test_nothing_says_whose_machine_it_was(runs, members):
    texts = {name: content.decode() for name, content in members.items() if not name.endswith((".png", ".parquet"))}
    secrets = [str(runs.root), str(runs.root.parent), str(ROOT), str(Path.home()) + "/", socket.gethostname(), f"/{getpass.getuser()}/"]
    assert not [(name, secret) for name, text in texts.items() for secret in secrets if secret in text]


@pytest.mark.parametrize("name", ["table1.csv", "table1.md", "table1.tex", "claims.md", "claims.csv", "index.html"])
def test_reports_that_are_not_what_the_results_give_are_not_exported(study, runs, reports, tmp_path, name):
    shutil.copytree(reports, tmp_path / "tiny")
    path = tmp_path / "tiny" / name
    if name == "table1.csv":
        rows = row_files.from_csv(path)
        rows.loc[rows.index[0], ["value", "low", "high"]] = 0.1
        path.write_text(row_files.to_csv(rows), encoding="utf-8")
    else:
        path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"{name}: is not what") as caught:
        export_study(study, reports=tmp_path / "tiny", results=runs.root, out=tmp_path / "out.zip")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.zip").exists()


def test_what_was_not_rendered_is_not_exported(study, runs, tmp_path):
    with pytest.raises(UserError, match=r"table1\.csv: no such file; run snakemake"):
        export_study(study, reports=tmp_path, results=runs.root, out=tmp_path / "out.zip")


@pytest.mark.parametrize("name", ["reports/table1.md", "reports/table1.tex", "reports/claims.md", "reports/index.html"])
def test_a_number_changed_by_hand_is_found_even_with_a_manifest_that_fits(members, tmp_path, name):
    content = members[name].replace(b"FID", b"FIB", 1)
    text, problems = verify_export(zipped(tmp_path / "a.zip", members | {name: content}))
    assert problems == [f"{name.removeprefix('reports/')}: is not what the rows give, from line {line_of(members[name], content)} on"]
    assert text == f"differs: {problems[0]}"


def line_of(old, new):
    return next(number for number, pair in enumerate(zip(old.split(b"\n"), new.split(b"\n"), strict=True), start=1) if pair[0] != pair[1])


def test_a_changed_row_is_found(members, tmp_path):
    lines = members["reports/table1.csv"].decode().splitlines(keepends=True)
    fid = next(number for number, line in enumerate(lines) if ",fid," in line)
    cells = lines[fid].split(",")
    cells[lines[0].split(",").index("value")] = "12.5"
    changed = "".join([*lines[:fid], ",".join(cells), *lines[fid + 1 :]]).encode()
    _, problems = verify_export(zipped(tmp_path / "a.zip", members | {"reports/table1.csv": changed}))
    assert any(problem.startswith("table1.md") for problem in problems)
    lines[fid] = lines[fid].replace(",ok,", ",fine,")
    _, problems = verify_export(zipped(tmp_path / "b.zip", members | {"reports/table1.csv": "".join(lines).encode()}))
    assert problems[0].startswith(f"reports/table1.csv, line {fid + 1}: status")


def test_what_the_manifest_does_not_say_is_found(members, tmp_path):
    for changed, message in (
        (members | {"records/extra.json": b"{}"}, "'records/extra.json' is in the zip, not in the manifest"),
        ({name: content for name, content in members.items() if name != "samples.csv"}, "'samples.csv' is in the manifest, not in the zip"),
        (members | {"samples.csv": b"other"}, "'samples.csv': sha256 is not the manifest's"),
    ):
        assert verify_export(zipped(tmp_path / "a.zip", changed, honest=False))[1] == [message]


def test_a_method_that_is_another_one_here_is_said_with_the_commit(members, tmp_path):
    facts = json.loads(members["environment.json"]) | {"commit": "0123456789ab", "dirty": False}
    other = members | {"methods/dsr.py": b"# changed\n", "environment.json": as_json(facts)}
    _, problems = verify_export(zipped(tmp_path / "a.zip", other))
    assert problems[0] == "methods/dsr.py: is not baselines/dsr.py as it is here"
    assert "the export is of commit 0123456789ab, this is " in problems[-1]


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil", "a/../../evil", "C:\\evil", "folder/", "a\\b"])
def test_a_name_that_leads_elsewhere_is_refused(members, tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"")
    with pytest.raises(UserError, match="holds a file named") as caught:
        verify_export(tmp_path / "a.zip")
    assert "\n" not in str(caught.value)


def test_a_link_a_double_and_a_bomb_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with zipfile.ZipFile(tmp_path / "double.zip", "w") as archive:
        archive.writestr("a", "1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", "2")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb", "w", force_zip64=True) as file:
        for _ in range(260):
            file.write(bytes(2**20))
    for name, message in (("link", "is a link"), ("double", "holds a file twice"), ("bomb", "more than .* MiB unpacked")):
        with pytest.raises(UserError, match=message):
            verify_export(tmp_path / f"{name}.zip")


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_export_is_one_line(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"not a readable zip|no readable manifest\.json") as caught:
        verify_export(tmp_path / "a.zip")
    assert "\n" not in str(caught.value)


@settings(max_examples=2 * settings.default.max_examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), kind=st.sampled_from(["flip", "truncate", "zero", "insert"]))
def test_a_spoiled_zip_never_verifies_as_something_else(exported, members, tmp_path, place, kind):
    content = bytearray(exported.read_bytes())
    at = int(place * len(content))
    if kind == "flip":
        content[at] ^= 1
    elif kind == "truncate":
        del content[at:]
    elif kind == "zero":
        content[at : at + 64] = bytes(len(content[at : at + 64]))
    else:
        content[at:at] = b"inserted"
    path = tmp_path / "spoiled.zip"
    path.write_bytes(content)
    problems = problems_of(path)
    assert all("\n" not in problem for problem in problems)
    if not problems:  # a byte of no member: a date, a comment
        assert unpack(path) == members


def problems_of(path):
    """Of a zip: what is wrong with it, by whichever way that is said."""
    try:
        return verify_export(path)[1]
    except UserError as error:
        return [str(error)]


@settings(max_examples=2 * settings.default.max_examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_odd_member_is_a_line_and_no_traceback(members, tmp_path, data):
    name = data.draw(
        st.sampled_from(["study.json", "environment.json", "reports/table1.csv", "specs/table1.yaml", "specs/claims.yaml", MANIFEST])
    )
    content = data.draw(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [b"null", b"[]", b"{}", b"1", b'{"name": 3}', b'{"commit": 1, "dirty": []}', b"[" * 5000, b"\xff\xfe", b"a: [b"]
            ),
            st.integers(0, len(members[name]) - 1).map(lambda n: members[name][:n]),
        )
    )
    if content == members[name]:
        return
    path = zipped(tmp_path / "odd.zip", members | {name: content}, honest=name != MANIFEST)
    problems = problems_of(path)
    assert all("\n" not in problem for problem in problems)
    assert problems or name == "environment.json"  # which decides nothing


def test_unpacking_reads_and_never_writes(exported, members, monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "extract", lambda *_: pytest.fail("extracted"))
    monkeypatch.setattr(zipfile.ZipFile, "extractall", lambda *_: pytest.fail("extracted"))
    assert unpack(exported) == members
