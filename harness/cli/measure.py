"""`dsr measure`: its options, and what they are told with."""

import argparse
from pathlib import Path

from harness.cli.adding import Add, at_least
from harness.store.assets import ASSETS_FOLDER
from harness.study.names import OF_STUDY
from harness.study.sections.extractors import EXTRACTORS
from harness.study.typed import check_seeds
from harness.workflow.counting import count_left_out

PROTOCOL = ("kid_subset", "neighbours", "resamples")
ABOUT = "score anyone's samples, with intervals: rows and a page in a folder; trains nothing, downloads nothing"
EXAMPLES = """
SAMPLES and REF are told by what they are. Samples: a folder of images (at any depth, in the order of sorted names), an .npz file with
arr_0 (ADM's; labels in arr_1) or images (a study's samples.npz), a data set of parquet, Arrow or tars. A reference: any of these, an .npz
file with mu and sigma (ADM's, clean-fid's), torch-fidelity's cached *-stat-fid-*.pt, or a study's references. Statistics alone serve FID;
KID, precision and recall need the reference's images. All images are of one size, with 8 bits; nothing is resized unless --image-size
says so.

  dsr measure mine.npz --judge inception=weights.pth --reference VIRTUAL_imagenet256_labeled.npz --out scores
  dsr measure samples/ --judge inception=weights.pth --reference val/ --train train/ --image-size 256 --out scores
  dsr measure samples/ --judge inception=weights.pth --clip ViT-L-14-quickgelu=clip.safetensors --captions prompts.txt --out scores
  dsr measure results/digits/runs/dsr/seed0/samples.npz --judge study:digits --reference study:digits --clip study:digits --out scores

The weights that `inception` takes are torch-fidelity's, weights-inception-2015-12-05-6726825d.pth of its releases on GitHub. In other
extractors' features FID is a Frechet distance of another name (FD-DINOv2, say) and scale. They are:
  {extractors}
""".replace("{extractors}", ", ".join(name for name in EXTRACTORS if name != "inception"))


def measure(a: argparse.Namespace) -> int:
    from harness.workflow.start import importing

    if a.seed is not None:
        check_seeds([a.seed])
    for told in filter(None, (a.judge, a.reference, a.clip)):
        if told.startswith(OF_STUDY):
            count_left_out(told.removeprefix(OF_STUDY), Path(ASSETS_FOLDER))
    with importing():
        from harness.commands.measure import measure as run
        from harness.evaluation.outside.score import Asked
        from harness.machine.device import set_up

    set_up(a.threads, gpus=int(a.gpu))
    asked = Asked(
        samples=a.samples,
        judge=a.judge,
        reference=a.reference,
        scores=a.scores,
        labels=a.labels,
        captions=a.captions,
        clip=a.clip,
        train=a.train,
        study=a.called,
        method=a.method,
        seed=a.seed,
        image_size=a.image_size,
        column=a.column,
        split=a.split,
        results=a.results,
        protocol=tuple((name, value) for name in PROTOCOL if (value := getattr(a, name)) is not None),
    )
    print(run(asked, a.out), end="")
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def add_measure(add: Add) -> None:
    """The subcommand."""
    sub = add("measure", measure, ABOUT)
    sub.epilog, sub.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
    sub.add_argument("samples", type=Path, metavar="SAMPLES", help="a folder, an .npz file or a data set")
    sub.add_argument(
        "--judge", required=True, metavar="JUDGE", help="inception=PATH (or inception-64, -192, -768), another's NAME=PATH, or study:NAME"
    )
    sub.add_argument("--reference", metavar="REF", help="what they are compared with: a path, or study:NAME")
    sub.add_argument(
        "--train", type=Path, metavar="PATH", help="training images: as many as there are samples are scored, too, as the floor"
    )
    sub.add_argument("--scores", type=_names, metavar="NAMES", help="such as fid,is,kid (default: all that can be had)")
    sub.add_argument(
        "--labels", metavar="HOW", help="for accuracy: folders (one a class), column:NAME, or a file: one a line, or CSV file_name,label"
    )
    sub.add_argument("--clip", metavar="CLIP", help="for the CLIP score: an open_clip folder, MODEL=FILE, or study:NAME")
    sub.add_argument("--captions", metavar="HOW", help="of it: column:NAME, or a file: one a line, or CSV file_name,text or class,text")
    sub.add_argument("--image-size", type=at_least(1), metavar="N", help="crop every image to N x N pixels, as ADM does")
    sub.add_argument("--column", metavar="NAME", help="of a data set: the one with the images (default: image, or the only such one)")
    sub.add_argument("--split", metavar="NAME", help="of a data set of several")
    sub.add_argument("--name", dest="called", default="measured", metavar="NAME", help="study in the rows (default: measured)")
    sub.add_argument("--method", metavar="NAME", help="method in the rows (default: what SAMPLES is called)")
    sub.add_argument("--seed", type=int, help="seed in the rows (default: none)")
    sub.add_argument("--kid-subset", type=at_least(1), metavar="N", help="images in each of KID's subsets (default: 1000, or the study's)")
    sub.add_argument("--neighbours", type=at_least(1), metavar="K", help="of precision and recall (default: 3, or the study's)")
    sub.add_argument("--resamples", type=at_least(1), metavar="N", help="for the intervals (default: 200, or the study's)")
    sub.add_argument("--results", type=Path, default=Path("results"), metavar="PATH", help="where studies' results are (default: results)")
    sub.add_argument("--threads", type=at_least(1), default=1, metavar="N", help="of the CPU (default: 1); more may move a last digit")
    sub.add_argument("--gpu", action="store_true", help="compute on a GPU, in float32 without TF32")
    sub.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="a new folder: rows.csv and scores.md")
