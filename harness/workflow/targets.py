"""What the reports of the configured study are made from: the runs of its own and of the studies that its tables and figures set beside it.

Computed while the Snakefile is parsed, so no torch and no pandas here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from harness.report import figure_specs, specs
from harness.study.fits import check_fits
from harness.study.folders import PROJECT
from harness.study.method import in_order
from harness.study.names import check_name
from harness.study.typed import UserError, digest
from harness.study.yaml_file import read_mapping
from harness.workflow.config import checked_config, stop
from harness.workflow.run import Run

CLAIMS = PROJECT / "reports" / "claims.yaml"
OTHERS = ("claims", "numbers", "paper", "rows", "times")  # what else lies where tables and figures do
FILES = {"samples": "samples.npz", "maps": "maps.npz"}  # need of a figure -> file of the first seed's runs


@dataclass(frozen=True)
class Report:
    """A table or a figure: the runs that it shows, and the files that it is rendered from."""

    name: str
    runs: list[Run]
    inputs: list[str]
    spec: str  # hash of its specification

    @property
    def config(self) -> str:
        """Hash of all that its studies and its specification say, a param of its rule."""
        return digest([self.spec, *([run.study.name, run.methods, run.config()] for run in self.runs)])


def checked_targets(config: dict[str, Any]) -> "Targets":
    """Snakemake's config and the specifications, checked; a mistake is one line and exit code 2, before any job starts."""
    targets = Targets(checked_config(config))
    asked(check_claims, CLAIMS)
    asked(lambda: targets.modules)
    return targets


def check_claims(file: Path) -> None:
    """UserError for YAML that is none and for an id that is no name, before the runs that the claims are about."""
    claims = read_mapping(file, "claims").get("claims") if file.is_file() else None
    for claim in claims if isinstance(claims, list) else ():
        if isinstance(claim, dict) and "id" in claim:
            check_name(claim["id"], "claim", str(file))


T = TypeVar("T")


def asked(find: Callable[..., T], *names: Any) -> T:
    """`find(*names)`; a UserError ends Snakemake with its line."""
    try:
        return find(*names)
    except UserError as error:
        stop(str(error))


@dataclass(frozen=True, eq=False)
class Targets:
    """Everything that can be rendered where `run` is configured."""

    run: Run

    @cached_property
    def tables(self) -> list[str]:
        """The tables that there are for the family, the configured study and its methods; `table1` first."""
        return [name for name in specs.table_names(self.run.study) if _unfit(self.table, name) is None]

    @cached_property
    def figures(self) -> list[str]:
        """The figures that there are, in the order of reports/figures.yaml."""
        return [name for name in self._drawable if _unfit(self.figure, name) is None]

    @cached_property
    def left_out(self) -> list[str]:
        """A line, with the reason, for every table and figure of the family that cannot be made of these studies and methods."""
        reasons = [_unfit(self.table, name) for name in specs.table_names(self.run.study)]
        reasons += [_unfit(self.figure, name) for name in self._drawable]
        return [f"left out: {reason}" for reason in reasons if reason is not None]

    @cached_property
    def _drawable(self) -> list[str]:
        return figure_specs.figure_names(self.run.study, self.run.methods)

    @cached_property
    def own_figures(self) -> list[str]:
        """The figures that need no more than the runs of `table1`."""
        return [name for name in self.figures if self._of_own_runs(name)]

    @property
    def inputs_of_own_figures(self) -> list[str]:
        return list(dict.fromkeys(path for name in self.own_figures for path in self.figure(name).inputs))

    @property
    def config_of_own_figures(self) -> str:
        return digest([self.figure(name).config for name in self.own_figures])

    def _of_own_runs(self, name: str) -> bool:
        runs = self.figure(name).runs
        beyond = set(figure_specs.load_figure(name).needs) & {"maps", "encoder_maps", "steps"}
        return not beyond and all(run.study.name == self.run.study.name and set(run.methods) <= set(self.run.methods) for run in runs)

    @cache  # noqa: B019 (one object lives as long as the process)
    def table(self, name: str) -> Report:
        """UserError for a table that there is not, here or at all."""
        spec = specs.load_table(name)
        parts = specs.parts(spec, self.run.study, self.run.methods)
        if not parts and not specs.paper_groups(spec, self.run.study):
            raise UserError(f"table '{name}': reports/tables/{name}.yaml names no study for the family '{self.run.study.family}'")
        runs, views = self._runs(parts, f"table '{name}'"), specs.views(spec)
        inputs = [path for run in runs for path in run.rows(views)]
        return Report(name, runs, list(dict.fromkeys(inputs)), digest(spec))

    @cache  # noqa: B019
    def figure(self, name: str) -> Report:
        """UserError for a figure that there is not, here or at all."""
        spec = figure_specs.load_figure(name)
        part = figure_specs.part(spec, self.run.study, self.run.methods)
        if part is None or name not in self._drawable:
            raise UserError(f"figure '{name}': study '{self.run.study.name}' has not what it shows; reports/figures.yaml says what that is")
        runs = self._runs([part], f"figure '{name}'")
        inputs = [path for run in runs for need in spec.needs for path in _needed(run, need)]
        return Report(name, runs, list(dict.fromkeys(inputs)), digest(spec))

    def _runs(self, parts: Iterable[specs.Part], what: str) -> list[Run]:
        runs = []
        for part in parts:
            try:
                for method in part.methods:
                    check_fits(part.study, method)
            except UserError as error:
                raise UserError(f"{what}: {error}") from None
            runs.append(replace(self.run, study=part.study, methods=part.methods))
        return runs

    @cached_property
    def modules(self) -> dict[str, dict[str, Any]]:
        """study -> configuration of its module: the configured study, every one that a table or figure shows, and what these share."""
        if both := set(self.tables) & {*figure_specs.load_figures(), *OTHERS}:
            raise UserError(
                f"table '{min(both)}': its name is that of a figure or of another file in reports/{self.run.study.name}; rename it"
            )
        shown = [self.run]
        shown += [run for name in self.tables for run in self.table(name).runs]
        shown += [run for name in self.figures for run in self.figure(name).runs]
        methods: dict[str, set[str]] = {}
        for run in shown:
            methods.setdefault(run.study.name, set()).update(run.methods)
        for run in {run.study.name: run for run in shown}.values():
            for name in run.homes.values():
                methods.setdefault(name, set())
        common = {"seeds": self.run.seeds, "assets": self.run.assets}
        return {name: common | {"study": name, "methods": in_order(own)} for name, own in methods.items()}


def _unfit(find: Callable[[str], Report], name: str) -> str | None:
    """Why there is no such table or figure here; None where there is."""
    try:
        find(name)
    except UserError as error:
        return str(error)
    return None


def _needed(run: Run, need: str) -> list[str]:
    """The files behind a need of reports/figures.yaml."""
    encoders: dict[str, Callable[[], list[str]]] = {
        "latents": lambda: [run.latents(encoder) for encoder in run.encoders],
        "encoder_maps": lambda: [run.place("encoder", f"encoders/{encoder}/maps.npz") for encoder in run.encoders],
        "registers": lambda: [path for encoder in run.encoders for path in run.registers(encoder)],
        "data": lambda: [run.place("data", "data")],
        "rows": run.rows,
        "steps": lambda: run.rows({"steps"}),
        "outliers": lambda: run.files("outliers.parquet"),
    }
    return run.files(FILES[need], seeds=run.seeds[:1]) if need in FILES else encoders[need]()
