"""A plan as Markdown, and how its numbers are written."""

from collections import Counter
from typing import get_args

from harness.plan.model import PEAKS, JobPlan, Plan, total_hours
from harness.results.markdown import markdown_table
from harness.results.units import bytes_text, scaled
from harness.store.asset_states import HASHED, AssetState, Examined
from harness.study.study import Study


def render_plan(plan: Plan) -> str:
    """Totals, what each method runs, what they share, disk, files to supply, notes."""
    sections = [
        f"# Compute plan: {plan.study.title}",
        _headline(plan),
        "## Methods\n\n" + _methods(plan),
        "## Shared by all methods and seeds\n\n" + _shared(plan),
        "## Disk\n\n" + _disk(plan),
        "## Files to supply\n\n" + _assets(plan),
        "## Notes\n\n" + "\n".join(f"- {line}" for line in _notes(plan)),
    ]
    return "\n\n".join(sections) + "\n"


def _headline(plan: Plan) -> str:
    methods, seeds = len(plan.methods), plan.seeds
    runs = f"Study `{plan.study.name}`: {methods} method{'s' * (methods > 1)} × {seeds} seed{'s' * (seeds > 1)}."
    disk = bytes_text(sum(plan.disk.values()))
    if plan.hours is None:
        return f"{runs} In total **{flops_text(plan.flops)}** and **{disk}** of disk; it runs on a CPU, so there are no GPU-hours."
    gpu = f"a GPU of {plan.peak_tflops:g} TFLOP/s" if plan.peak_tflops else "an H100"
    longest = max((stage for stage, _ in plan.stages), key=lambda stage: stage.hours or 0.0)
    alone = _days(longest.hours or 0.0)
    return (
        f"{runs} In total **{flops_text(plan.flops)}**, **{hours_text(plan.hours)} GPU-hours** on {gpu} at {plan.utilisation:.0%} of its "
        f"peak, and **{disk}** of disk. The longest job, `{longest.name}` of `{longest.subject}`, takes {alone} on one GPU."
    )


def _methods(plan: Plan) -> str:
    base, gpu = plan.methods[0], plan.hours is not None
    unit = "FLOPs (GPU-hours)" if gpu else "FLOPs"
    heading = ["Method", "Encoder", "Parameters, M", "GFLOPs per forward", f"Training, {unit}", f"Sampling, {unit}", f"Scoring, {unit}"]
    total = f"Total of {plan.seeds} seed{'s' * (plan.seeds > 1)}, {'GPU-hours' if gpu else 'FLOPs'}"
    rows = []
    for method in plan.methods:
        more = f" (+{method.forward / base.forward - 1:.1%})" if method.forward > base.forward else ""
        own = [(stage, method.runs(plan.seeds)) for stage in method.stages]
        scoring = [method.stage("scores"), method.stage("outliers")]
        rows.append([
            method.title, f"`{method.encoder}`", millions(method.parameters), gflops_text(method.forward) + more,
            _cost([method.weights]), _cost([method.stage("samples")]), _cost(scoring),
            hours_text(total_hours(own)) if gpu else flops_text(sum(stage.flops * times for stage, times in own)),
        ])  # fmt: skip
    shared = [(stage, 1) for stage in plan.shared]
    for name, stages in (("shared stages", shared), ("**total**", plan.stages)):
        rows.append([name, *[""] * 6, hours_text(total_hours(stages)) if gpu else flops_text(sum(s.flops * times for s, times in stages))])
    trained, sample = [method.weights for method in plan.methods if method.weights.name == "denoiser"], base.stage("samples")
    most, micro = max((one.memory for one in trained), default=0), plan.study.denoiser.training.micro_batch
    step = f"a step in micro-batches of {micro}" if micro else "a step"
    training = (
        f"Training: {trained[0].what}, {trained[0].images:,} images, {trained[0].precision}; {step} holds {bytes_text(most)} in fp32 "
        "without compilation. "
        if trained
        else ""
    )
    published = "Published weights are not trained, and have one run. " if len(trained) < len(plan.methods) else ""
    under = f"{training}{published}Sampling: {plan.study.sampling.count:,} images, {sample.what}, {sample.precision}."
    return markdown_table([*heading, total], rows, "ll") + f"\n\nColumns before the last are of one seed. {under}"


def _shared(plan: Plan) -> str:
    gpu = plan.hours is not None
    rows = [
        [
            f"`{stage.name}`", f"`{stage.subject}`" if stage.subject else "", stage.what, millions(stage.parameters),
            gflops_text(stage.forward), f"{stage.images:,}" if stage.images else "–", flops_text(stage.flops),
            *([hours_text(stage.hours)] if gpu else []),
        ]
        for stage in plan.shared
    ]  # fmt: skip
    heading = ["Stage", "Of", "What", "Parameters, M", "GFLOPs per forward", "Images", "FLOPs", *(["GPU-hours"] if gpu else [])]
    return markdown_table(heading, rows, "lll")


def _disk(plan: Plan) -> str:
    rows = [[kind, bytes_text(size)] for kind, size in plan.disk.items()]
    rows.append(["**all that stays**", f"**{bytes_text(sum(plan.disk.values()))}**"])
    most = max((stage for stage, _ in plan.stages), key=lambda stage: stage.temporary)
    supplied = sum(asset.bytes or 0 for asset in plan.assets)
    if supplied:
        rows.append(["besides: files to supply, where their size is known", bytes_text(supplied)])
    rows.append(
        [
            f"besides: checkpoint of a training while it runs, at most (`{most.name}`; twice that while it is written)",
            bytes_text(most.temporary),
        ]
    )
    return markdown_table(["What", "Size"], rows)


def _assets(plan: Plan) -> str:
    if not plan.assets:
        return "None: the study trains every model itself."
    rows = [[f"`{a.name}`", f"`{a.path}`", a.source, _state(a), bytes_text(a.bytes) if a.bytes else "–"] for a in plan.assets]
    count = Counter(asset.state for asset in plan.assets)
    states = "; ".join(f"{count[state]} {state}" for state in get_args(AssetState) if count[state])
    return markdown_table(["Field", "Put it at", "From", "State", "Size"], rows, "llll") + f"\n\nOf {len(plan.assets)}: {states}."


def _state(asset: Examined) -> str:
    state = f"**{asset.state}**" if asset.state.startswith(("missing", "wrong")) else asset.state
    return f"{state}: {asset.detail}" if asset.detail else state


def _notes(plan: Plan) -> list[str]:
    study, lines = plan.study, []
    if plan.hours is not None:
        peaks = (
            f"{plan.peak_tflops:g} TFLOP/s in every stage"
            if plan.peak_tflops
            else "that of an H100 SXM without sparsity: " + ", ".join(f"{peak:g} TFLOP/s in {name}" for name, peak in PEAKS.items())
        )
        lines += [
            f"GPU-hours = FLOPs / (utilisation × peak), utilisation {plan.utilisation:g}: the share of the peak that a job reaches. "
            "Training DiT-XL reached 0.25 to 0.27 in TF32 on one H100, sampling in bf16 0.41. `dsr benchmark` measures yours, "
            "`--utilisation` takes it; the hours scale with its inverse.",
            f"Peak: {peaks}. fp32 without TF32: encoding for statistics, scoring, and sampling where the study says so.",
        ]
        over = [stage for stage, _ in plan.stages if (stage.hours or 0.0) * 60 > study.job.minutes]
        if over:
            lines.append(
                f"A job runs on one GPU, and the study lets it take {_days(study.job.minutes / 60)} (`job.minutes`): too little for "
                f"{', '.join(f'`{stage.name}` of `{stage.subject}`' for stage in over)}. A job that is stopped goes on from its checkpoint."
            )
    online = "" if study.latents.cache else ", and one of the encoder, which encodes at every step"
    lines += [
        f"FLOPs count 2 per multiply-add in matrix products, convolutions and attention, by torch's counter. "
        f"Training: 3 forward passes an image{online}.",
        "Sampling: every evaluation of the velocity is one forward pass, two inside the interval of guidance; then one of the decoder.",
        "Not counted: reading and decoding images, the optimiser and the averages, compilation, training that is repeated or tuned, "
        "the text tower of CLIP, FID's matrix root, and waiting for the file system.",
    ]
    if others := _others(study):
        lines.append(f"Not counted, because only other tables and figures than Table 1 show it: {'; '.join(others)}.")
    if plan.assets:
        hashed = (
            "Every file whose sha256 is known was hashed, however large, unless its size was wrong."
            if plan.checked
            else f"Files above {bytes_text(HASHED)} were not hashed (`not hashed`): `--check` hashes them, and so does the run before "
            "it uses them."
        )
        lines.append(
            "`verified`: the sha256 is the one that the study names, or begins with the digits that it names. `present`: there, and what "
            f"is in it was not checked. {hashed} Of a folder, only the file that the study names was looked at, where it names one. "
            f"`dsr fetch {study.name}` gets what is missing and a program may get."
        )
    return lines


def _others(study: Study) -> list[str]:
    """Work that a run of Table 1 leaves out."""
    search, work = study.sampling.guidance_search, []
    if study.snapshots:
        work.append(f"samples at {len(study.snapshots)} earlier step{'s' * (len(study.snapshots) > 1)}, for each as many as a run has")
    if search:
        work.append(
            f"guidance, for each method that it is searched for a further training (seed {search.seed}), {len(search.candidates)} times "
            f"{search.count:,} samples of that, and guided samples of each seed"
        )
    return work


def _cost(stages: list[JobPlan]) -> str:
    hours = total_hours((stage, 1) for stage in stages)
    return flops_text(sum(stage.flops for stage in stages)) + (f" ({hours_text(hours)})" if hours is not None else "")


def millions(parameters: int) -> str:
    return f"{parameters / 1e6:,.{2 if parameters >= 1e5 else 4}f}" if parameters else "–"


def gflops_text(flops: float) -> str:
    return f"{flops / 1e9:,.{1 if flops >= 1e9 else 5}f}" if flops else "–"


def flops_text(flops: float) -> str:
    """With a prefix, three significant digits: 73.1 EFLOP."""
    return scaled(flops, 1000, ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"])


def hours_text(hours: float | None) -> str:
    if not hours:
        return "–"
    return "< 0.01" if hours < 0.01 else f"{hours:.2f}" if hours < 10 else f"{hours:,.0f}"


def _days(hours: float) -> str:
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
