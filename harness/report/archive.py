"""`dsr export` and `dsr verify`: all that a study's numbers rest on in one zip, except weights and images; and the check of such a zip.

A zip is checked with this checkout's code, and nothing in it is run: its rows are read, its tables and pages are made from them anew,
and compared byte by byte.
"""

import hashlib
import json
import platform
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from importlib import metadata
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pandas as pd

from harness.report import claims, hypotheses, page, table
from harness.report import rows as row_files
from harness.report.chain import relative
from harness.report.page import without_places
from harness.report.specs import TableSpec, load_spec, load_table
from harness.store import artifacts
from harness.store.files import atomic
from harness.store.provenance import commit as commit_of
from harness.study.folders import PROJECT
from harness.study.method import load_method, method_file
from harness.study.seeds import PUBLISHED, run_name
from harness.study.study import Study, parse_study
from harness.study.typed import UserError

MANIFEST = "manifest.json"
SPECS = {"table1.yaml": "tables/table1.yaml", "claims.yaml": "claims.yaml"}  # name in the zip -> path below reports/
TABLE = (".csv", ".md", ".tex")
T = TypeVar("T")
RENDERED = ("table1.csv", "table1.md", "table1.tex", "claims.md", "claims.csv", "index.html")
FURTHER = ("rows.parquet", "times.csv", "paper.csv", "numbers.tex", "*.png", "*.pdf")
LARGEST, MOST = 256 * 2**20, 20_000  # bytes unpacked, members: more is no export
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every member: the same study gives the same bytes

README = """What is in here: the numbers of study '{study}', and what they rest on. Commit {commit}.

reports/        table1.csv (a line for each method, seed and score), the tables and the claims made from it, the further tables that
                index.html shows with their rows, which may be of other studies too, figures, and index.html, which shows all
specs/          what the tables and the claims consist of
methods/        the file of each method
study.json      every setting of the study
samples.csv     sha256 of each run's samples
records/        the record of each artifact of this study: sha256, inputs with their sha256, settings, code, commit, versions, device,
                seconds
environment.json, constraints.txt   the machine that exported this, and the versions that an installation is held to
manifest.json   sha256 of each of these files

Weights and images are not in here; their hashes are. Local paths were cut down to what lies below the results folder.
    dsr verify FILE.zip
makes the tables, the claims and index.html from table1.csv anew and compares them with those in here.
"""


def export_study(study: Study, *, reports: Path, results: Path, out: Path) -> dict[str, Any]:
    """Write the zip. UserError if what is in `reports` is not what the results give; `reports`, `results`: the study's own folders."""
    files = {}
    shown = page.tables_of((reports / "index.html").read_text(encoding="utf-8")) if (reports / "index.html").is_file() else []
    for name in [*RENDERED, *(f"{name}{suffix}" for name in shown for suffix in TABLE)]:
        if not (reports / name).is_file():
            raise UserError(
                f"{reports / name}: no such file; run snakemake --cores all reports/claims.md --config study={study.name} first"
            )
        files[name] = (reports / name).read_bytes()
    rows = row_files.from_csv(reports / "table1.csv")
    methods, seeds = runs_of(rows)
    if row_files.to_csv(row_files.collect(study, methods, seeds, results)).encode() != files["table1.csv"]:
        raise UserError(f"{reports / 'table1.csv'}: is not what {results} gives: older, or changed; run the whole line again, then export")
    named = SPECS | {f"{name}.yaml": f"tables/{name}.yaml" for name in shown}
    specs = {name: (PROJECT / "reports" / path).read_bytes() for name, path in named.items()}
    everything = [rows]
    for name in shown:
        everything.append(table.collect_rows(study, methods, seeds, results, load_table(name)))
        if row_files.to_csv(everything[-1]).encode() != files[f"{name}.csv"]:
            raise UserError(f"{reports / name}.csv: is not what the results give: older, or changed; render it again, then export")
    for pattern in FURTHER:
        files |= {path.name: path.read_bytes() for path in sorted(reports.glob(pattern))}
    for problem in differing(study, rows, files, specs):
        raise UserError(f"{reports}: {problem}; run the whole line again, then export")
    records = records_of(results, methods, seeds)
    commit, dirty = commit_of()
    members = {
        "README.txt": README.format(study=study.name, commit=_revision(commit, dirty)).encode(),
        "study.json": as_json(without_places(study.values())),
        "samples.csv": samples_of(records).encode(),
        "environment.json": as_json(environment(rows, commit, dirty)),
        "constraints.txt": (PROJECT / "envs" / "constraints.txt").read_bytes(),
        **{f"reports/{name}": content for name, content in files.items()},
        **{f"specs/{name}": content for name, content in specs.items()},
        **{f"methods/{path.name}": path.read_bytes() for path in method_files(everything)},
        **{f"records/{name}{artifacts.META}": as_json(record) for name, record in records.items()},
    }
    members[MANIFEST] = as_json({name: hashlib.sha256(content).hexdigest() for name, content in members.items()})
    with atomic(out) as temporary:
        pack(temporary, members)
    return {"files": len(members), "bytes": out.stat().st_size, "out": str(out)}


def runs_of(rows: pd.DataFrame) -> tuple[list[str], list[int]]:
    """(methods, seeds) in the order of the rows; published weights have no seed."""
    return list(dict.fromkeys(rows["method"])), [int(seed) for seed in dict.fromkeys(rows["seed"]) if seed != PUBLISHED]


def method_files(tables: list[pd.DataFrame]) -> list[Path]:
    """The files of all methods of some rows."""
    return sorted({method_file(name) for rows in tables for name in rows["method"].unique()})


def as_json(value: object) -> bytes:
    """Sorted and indented, so that the same value gives the same bytes."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def pack(path: Path, members: dict[str, bytes]) -> None:
    """A zip without times or owners: the same members give the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, members[name])


def records_of(results: Path, methods: list[str], seeds: list[int]) -> dict[str, dict[str, Any]]:
    """The records of the runs and of all they were made from, by the artifact's path below `results`, without local paths."""
    records = {}
    for path in sorted(results.rglob(f"*{artifacts.META}")):
        artifact = path.with_name(path.name.removesuffix(artifacts.META))
        parts = artifact.relative_to(results).parts
        foreign = parts[0] == "runs" and (parts[1] not in methods or parts[2] not in {*map(run_name, [*seeds, PUBLISHED])})
        if parts[0] == "state" or any(part.startswith(".") for part in parts) or foreign:
            continue
        record = artifacts.meta(artifact)
        record["inputs"] = {relative(name, results): sha256 for name, sha256 in record["inputs"].items()}
        records["/".join(parts)] = without_places(record)
    return records


def samples_of(records: dict[str, dict[str, Any]]) -> str:
    """CSV with a line for each samples file."""
    lines = ["file,method,seed,sha256"]
    lines += [f"{name},{r['method']},{r['seed']},{r['sha256']}" for name, r in records.items() if r["stage"] == "samples"]
    return "\n".join(lines) + "\n"


def environment(rows: pd.DataFrame, commit: str, dirty: bool) -> dict[str, Any]:
    """Of the exporting process, and what the rows say of theirs."""
    return {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "distributions": {package.name: package.version for package in metadata.distributions() if package.name},
        "rows": {
            field: sorted(map(str, set(rows[field]))) for field in ("commit", "dirty", "device", "versions", "precision", "code", "config")
        },
    }


# ------------------------------------------------------------------------------------------------------------------ verify


def verify_export(path: Path) -> tuple[str, list[str]]:
    """(text, problems) of a zip that `export_study` wrote: its hashes, its rows, and its tables and pages made from the rows anew."""
    members = unpack(path)
    try:
        wanted = dict(json.loads(members.pop(MANIFEST, b"")).items())
    except (ValueError, AttributeError, RecursionError):
        raise UserError(f"{path}: has no readable {MANIFEST}; not an export, or spoiled") from None
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    problems = [f"{name!r} is in the manifest, not in the zip" for name in sorted(set(wanted) - set(hashes))]
    problems += [f"{name!r} is in the zip, not in the manifest" for name in sorted(set(hashes) - set(wanted))]
    problems += [f"{name!r}: sha256 is not the manifest's" for name in sorted(set(wanted) & set(hashes)) if wanted[name] != hashes[name]]
    about = ""
    if not problems:
        try:
            about, problems = _rendered_anew(members)
        except UserError as error:
            problems = [str(error)]
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            problems = [f"not an export of this harness ({type(error).__name__}: {' '.join(str(error).split())})"]
    text = "\n".join(f"differs: {problem}" for problem in problems) if problems else f"verified: {path}: {about}"
    return text, problems


def _rendered_anew(members: dict[str, bytes]) -> tuple[str, list[str]]:
    """(what it is, problems) of a zip whose hashes are right."""
    facts, values = json.loads(members["environment.json"]), json.loads(members["study.json"])
    theirs, ours = _revision(facts["commit"], facts["dirty"]), _revision(*commit_of())
    rows = _read(members, "reports/table1.csv", row_files.from_csv)
    reports, specs = (
        {name.removeprefix(f"{folder}/"): content for name, content in members.items() if name.startswith(f"{folder}/")}
        for folder in ("reports", "specs")
    )
    try:
        problems = methods_differ([rows, *(its_rows for _, its_rows in further(reports, specs).values())], members)
        problems += differing(parse_study(values.pop("name"), values), rows, reports, specs)
    except UserError as error:
        problems = [str(error)]
    if problems and theirs != ours:
        problems.append(f"the export is of commit {theirs}, this is {ours}: at its own commit it may well verify")
    return f"{len(rows)} rows of study '{rows['study'].iloc[0]}', {len(members)} files, commit {theirs}", problems


def _revision(commit: str, dirty: bool) -> str:
    return f"{commit}{'+dirty' * bool(dirty)}"


def _read(members: dict[str, bytes], name: str, reader: Callable[[Path], T]) -> T:
    """What `reader` makes of a member, which it is given as a file."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / Path(name).name
        copy.write_bytes(members[name])
        try:
            return reader(copy)
        except UserError as error:
            raise UserError(str(error).replace(str(copy), name)) from None


def unpack(path: Path) -> dict[str, bytes]:
    """The members of a zip, in memory. UserError in one line for a spoiled one, or one that is no export."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if len(infos) > MOST or sum(info.file_size for info in infos) > LARGEST:
                raise UserError(f"{path}: more than {MOST} files or {LARGEST >> 20} MiB unpacked; not an export, or made to fill a disk")
            if len({info.filename for info in infos}) < len(infos):
                raise UserError(f"{path}: holds a file twice; not an export, or spoiled")
            for info in infos:
                parts = PurePosixPath(info.filename).parts
                if (
                    "\\" in info.filename
                    or ":" in info.filename
                    or ".." in parts
                    or info.filename[:1] in ("/", "")
                    or info.filename[-1:] == "/"
                ):
                    raise UserError(f"{path}: holds a file named {info.filename!r}; not an export, or made to write elsewhere")
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise UserError(f"{path}: {info.filename!r} is a link; not an export")
            return {info.filename: archive.read(info) for info in infos}
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not a readable zip ({reason}); truncated? get it again") from None


def methods_differ(tables: list[pd.DataFrame], members: dict[str, bytes]) -> list[str]:
    """Methods whose file here is not the one in the zip; their titles are in the tables."""
    problems = []
    for own in method_files(tables):
        if not own.is_file():
            problems.append(f"methods/{own.name}: there is no baselines/{own.name} here; read it, then put it there")
        elif own.read_bytes() != members.get(f"methods/{own.name}"):
            problems.append(f"methods/{own.name}: is not baselines/{own.name} as it is here")
    return problems


def further(reports: dict[str, bytes], specs: dict[str, bytes]) -> dict[str, tuple[TableSpec, pd.DataFrame]]:
    """The tables that index.html shows besides the first, by name: specification and rows."""
    names = page.tables_of(reports["index.html"].decode(errors="replace"))
    return {
        name: (_read(specs, f"{name}.yaml", load_spec), _read(reports, f"{name}.csv", lambda path: row_files.from_csv(path, empty=True)))
        for name in names
    }


def differing(study: Study, rows: pd.DataFrame, reports: dict[str, bytes], specs: dict[str, bytes]) -> list[str]:
    """Which of RENDERED, and of the further tables, are not what the rows give. `reports` and `specs`: contents by file name."""
    methods, seeds = runs_of(rows)
    for name in methods:
        load_method(name)
    spec, wanted = _read(specs, "table1.yaml", load_spec), _read(specs, "claims.yaml", hypotheses.load_claims)
    figures = {name: reports[f"{name}.png"] for name in page.figures_shown(reports["index.html"].decode(errors="replace"))}
    others = further(reports, specs)
    judged, lines = claims.claims_texts(study, rows, methods, seeds, wanted)
    fresh = {
        "claims.md": judged,
        "claims.csv": lines,
        "index.html": page.page_html(study, rows, methods, seeds, spec=spec, declared=wanted, figures=figures, others=others),
    }
    for name, (of, its_rows) in {page.MAIN: (spec, rows), **others}.items():
        text, tex = table.table_texts(study, its_rows, methods, seeds, of)
        fresh |= {f"{name}.csv": row_files.to_csv(its_rows), f"{name}.md": text, f"{name}.tex": tex}
    problems = []
    for name, text in fresh.items():
        old = reports[name].decode(errors="replace")
        if old != text:
            pairs = enumerate(zip_longest(old.splitlines(), text.splitlines()), start=1)
            number = next((number for number, (a, b) in pairs if a != b), 1)
            problems.append(f"{name}: is not what the rows give, from line {number} on")
    return problems
