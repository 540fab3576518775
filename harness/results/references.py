"""The names of what samples are compared with."""

from harness.study.study import Study
from harness.study.typed import UserError

HELD_OUT = "held_out"  # name of the reference that is made of the study's held-out images


def references_of(study: Study) -> list[str]:
    """Names of what samples are compared with; plain `fid` is against the first."""
    names = [reference.name for reference in study.evaluation.references]
    if HELD_OUT in names or len(set(names)) < len(names):
        raise UserError(
            f"study '{study.name}': evaluation.references must differ in name, and none may be called {HELD_OUT}; got {', '.join(names)}"
        )
    return [*names, HELD_OUT] if study.evaluation.reconstruction or not names else names
