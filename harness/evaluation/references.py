"""Stage `references`: what samples are compared with, computed once for all methods.

`held_out` is the study's held-out images; the others are ADM reference batches, whose images serve precision, recall and KID.
"""

from pathlib import Path

import torch

from harness.data.stage import load_data
from harness.evaluation.adm_batches import batch_statistics
from harness.evaluation.features import Extractor, Seen
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.results.references import HELD_OUT, references_of
from harness.store import artifacts
from harness.store.assets import locate, record_of
from harness.store.tensors import load_tensors, save_tensors
from harness.study.study import Study
from harness.study.typed import UserError


def make_references(study: Study, *, data: Path, judge: Path, records: list[Path] = (), out: Path) -> dict:
    """Write the references of a study in the order of `references_of`; returns what each is made of."""
    names, extract = references_of(study), Extractor(study, judge)
    batches = {name: record_of(records, f"evaluation.references.{name}.file") for name in names if name != HELD_OUT}
    inputs = [judge, data, *batches.values()]
    with artifacts.artifact(out, stage="references", module=__name__, config=study.evaluation, inputs=inputs) as path:
        references = []
        for name in names:
            if name == HELD_OUT:
                images = Seen(load_data(data, "reference"))
                features = extract(images)["features"]
                references.append(ReferenceStatistics.of_features(name, features, artifacts.checked(data), extract.sha256, images.sha256))
            else:
                source = artifacts.read_json(batches[name])["sha256"]
                references.append(batch_statistics(study, name, locate(batches[name]), source, extract))
            _enough_images(study, references[-1])
        tensors = {}
        for one in references:
            tensors |= {
                f"{one.name}.mu": torch.from_numpy(one.mu),
                f"{one.name}.sigma": torch.from_numpy(one.sigma),
                f"{one.name}.features": one.features,
            }
        facts = {
            one.name: {"sha256": one.sha256, "content": one.content, "statistics": one.statistics, "images": one.n} for one in references
        }
        listed = [{"name": name, **one} for name, one in facts.items()]  # a list, because the file sorts the keys of a mapping
        save_tensors(path, tensors, references=listed, extractor=extract.sha256)
    return facts


def load_references(path: Path) -> dict[str, ReferenceStatistics]:
    """By name, in the order of `references_of`."""
    tensors, facts = load_tensors(path)
    return {
        one["name"]: ReferenceStatistics(
            one["name"],
            *(tensors[f"{one['name']}.{which}"].numpy() for which in ("mu", "sigma")),
            tensors[f"{one['name']}.features"],
            one["sha256"],
            one["statistics"],
            facts["extractor"],
            one["content"],
        )
        for one in facts["references"]
    }


def _enough_images(study: Study, reference: ReferenceStatistics) -> None:
    least = max(study.evaluation.kid_subset, study.evaluation.neighbours + 1)
    if reference.n < least:
        raise UserError(f"reference {reference.name} has {reference.n} images; evaluation.kid_subset and neighbours need at least {least}")
