"""What a study's user supplies."""

from pydantic import Field

from harness.study.typed import Count, Sha256, Strict


class Asset(Strict):
    """A file or folder from outside: weights, statistics, images. It is looked for at `path` below the assets folder."""

    path: str
    hub: str | None = None  # name on the Hugging Face hub: where `path` is not there, its folder in the hub's local cache is taken
    source: str  # where it is published, for people
    sha256: Sha256 | None = None  # or its first digits; None where none is published: what is found is recorded
    file: str | None = None  # of a folder: the file whose sha256 stands for it; None: the names and contents of all files do
    bytes: Count | None = None  # size, for the plan


class Weights(Asset):
    """A file of weights."""

    container: str | None = Field(default=None, min_length=1)  # of several in the file, the one that is meant, as `dsr import` lists them
