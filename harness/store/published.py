"""Where published files are to be had, who says so and how large they are: `published.yaml`, beside what studies say themselves.

An asset and its entry in the list are joined by the path below the assets folder. Nothing here uses the network.
"""

from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import quote, urlsplit

from pydantic import Field, ValidationError, model_validator

from harness.study.sections.asset import Asset
from harness.study.typed import Count, Sha256, Strict, Title, UserError, explain
from harness.study.yaml_file import read_mapping

LIST = Path(__file__).with_name("published.yaml")
HUB = "https://huggingface.co"  # for people; a mirror (HF_ENDPOINT) is huggingface_hub's to know
BESIDE = ("config.json", "preprocessor_config.json")  # what encoder/ reads beside the weights of a folder, where there are such files


class Publication(Strict):
    """Where one file is published: on the Hugging Face hub, at an address of its own, or where only a person can get it."""

    what: Title
    hub: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None  # repository
    file: str | None = None  # in the repository; of what is got by hand, in the folder that is told there
    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    by_hand: Title | None = None
    stated_by: Title
    bytes: Count | None = None
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "Publication":
        places = [self.hub, self.url, self.by_hand]
        if places.count(None) != len(places) - 1 or (self.hub and not self.file) or (self.url and self.file):
            raise ValueError("say one of: hub with file, url, by_hand (with file, or without)")
        return self

    @property
    def address(self) -> str | None:
        """For people: of the file, without what stands after `?`; None of what is got by hand."""
        if self.hub and self.file:
            return f"{HUB}/{self.hub}/blob/main/{quote(self.file)}"
        return self.url.partition("?")[0] if self.url else None

    @property
    def instruction(self) -> str | None:
        """What a person has to do to get it; None of what `dsr fetch` gets."""
        return f"{self.by_hand}; put its {self.file} there" if self.by_hand and self.file else self.by_hand

    @property
    def host(self) -> str | None:
        return urlsplit(self.address).hostname if self.address else None


@cache
def published() -> dict[str, Publication]:
    """path below the assets folder -> what is known of the file. UserError, in one line, for a list that is none."""
    known: dict[str, Publication] = {}
    for path, values in read_mapping(LIST, "paths below the assets folder").items():
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise UserError(f"{LIST}: '{path}' is no path below the assets folder")
        try:
            known[path] = Publication.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{LIST}: {path}: {explain(error, Publication)}") from None
    return known


def publication_of(asset: Asset) -> Publication | None:
    """What is known of the file of an asset, or of the one that stands for its folder; what the asset states counts. None: nothing is."""
    stated = {name: value for name in ("bytes", "sha256") if (value := getattr(asset, name)) is not None}
    if asset.hub and asset.file:
        return Publication(what=asset.source, hub=asset.hub, file=asset.file, stated_by="the study", **stated)
    entry = published().get(asset.path)
    return entry.model_copy(update=stated) if entry else None
