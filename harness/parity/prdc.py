"""Precision, recall, density and coverage of dgm-eval@74c79f7, torch-fidelity@5e211a9, FD-Loss@2f22479 and ADM's evaluator."""

from harness.evaluation.neighbours import Ties
from harness.evaluation.prdc import balls
from harness.evaluation.precision_recall import precision_recall
from harness.parity.base import Described, Format, number
from harness.parity.files import GoldenFile, Tensors

RULES: dict[str, Ties] = {  # which points on a ball's surface are inside
    "dgm_eval_prdc": "<",
    "float64_strict_less": "<",
    "float64_less_equal": "<=",
    "adm_pytorch": "<=",
    "fd_loss": "<=",
}
TORCH_FIDELITY = ("torch_fidelity_full", "torch_fidelity_part")


def outputs(file: GoldenFile, _config: Described) -> Tensors:
    """Of `real` (N, D) and `fake` (M, D), and of points on a grid: the shares () for 3 and 5 neighbours."""
    computed = {}
    for ties in ("", "_ties"):
        real, fake = file.take(f"real{ties}", f"fake{ties}")
        for neighbours in (3, 5):
            run = f"values.{'ties_' if ties else ''}k{neighbours}"
            for program, rule in RULES.items():
                of = balls(fake, real, neighbours, ties=rule)
                computed |= {
                    f"{run}.{program}.precision": (of.holding > 0).double().mean(),
                    f"{run}.{program}.recall": of.recalled.double().mean(),
                    f"{run}.{program}.density": of.holding.double().mean() / neighbours,
                    f"{run}.{program}.coverage": of.reached.double().mean(),
                }
            library = precision_recall(fake, real, neighbours, halves=2)
            shares = {name: number(one.value) for name, one in library.items()}
            computed |= {f"{run}.{program}.{name}": share for program in TORCH_FIDELITY for name, share in shares.items()}
    return computed


REALISM = "not compared: of a single image, and no score here"
FORMAT = Format(Described, outputs, inputs=("real", "real_ties", "fake", "fake_ties"), left_out={"realism_*": REALISM})
