"""`dsr plan`: what a study would cost before any of it runs: FLOPs, GPU-hours, disk, and the files that its user has to supply."""

from pathlib import Path
from typing import Any

from harness.plan.compute import compute_table, sizes
from harness.plan.jobs import Stages
from harness.plan.markdown import render_plan
from harness.plan.model import UTILISATION, JobPlan, Plan
from harness.store import assets as asset_files
from harness.store.asset_states import examine
from harness.study.fits import check_fits
from harness.study.method import load_method, method_names
from harness.study.study import Study
from harness.study.typed import UserError

__all__ = ["JobPlan", "Plan", "compute_table", "make_plan", "plan", "render_plan", "sizes"]


def make_plan(
    study: Study,
    *,
    methods: list[str] | None = None,
    seeds: int = 1,
    assets: Path = Path(asset_files.ASSETS_FOLDER),
    utilisation: float = UTILISATION,
    peak_tflops: float | None = None,
    check: bool = False,
) -> Plan:
    """The plan of `methods` (None: those of the study) with `seeds` runs each. `check`: hash every file whose sha256 is known.

    Raises UserError for a method that does not fit the study, fewer than one seed, a utilisation outside (0, 1] or a peak that is not
    positive.
    """
    if seeds < 1 or not 0 < utilisation <= 1 or (peak_tflops is not None and peak_tflops <= 0):
        raise UserError("a plan needs at least 1 seed, a utilisation above 0 and at most 1, and a positive peak in TFLOP/s")
    names = methods or study.methods or method_names()
    for name in names:
        check_fits(study, name)
    stages = Stages(study, utilisation, peak_tflops)
    variants = list(dict.fromkeys(load_method(name).encoder.key for name in names))
    return Plan(
        study=study,
        seeds=seeds,
        utilisation=utilisation,
        peak_tflops=peak_tflops,
        checked=check,
        shared=stages.shared(variants),
        methods=[stages.method(name) for name in names],
        assets=[examine(name, asset, assets, check) for name, asset in study.assets.items()],
    )


def plan(study: Study, **settings: Any) -> str:
    """The plan as Markdown; arguments and errors as those of `make_plan`."""
    return render_plan(make_plan(study, **settings))
