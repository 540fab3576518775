"""The data source `dataset`: parquet, Arrow and WebDataset's tars, as the library `datasets` reads them from a folder or file.

Nothing is downloaded. Images are cropped once and kept with the results, as PNG.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from harness.data.by_class import Listed
from harness.data.class_words import class_name, plain_text
from harness.data.folder import DECODERS, OnDisk, indexed
from harness.data.images import centre_crop
from harness.data.own import OwnSource
from harness.data.shards import check_whole
from harness.store.asset_files import sha256
from harness.study.sections.data import DatasetFiles
from harness.study.typed import UserError, did_you_mean

BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}  # of a single file
SAVED = ("state.json", "dataset_dict.json")  # of what `save_to_disk` wrote
IMAGES = "images"  # folder of the images, by split
TOGETHER = 16 * DECODERS  # images in memory


class DatasetSource(OwnSource):
    """Rows with an image, a label and perhaps a text, in the columns that the section names."""

    data: DatasetFiles

    def look(self, root: Path, split: str) -> Listed:
        """The files are rows by number. A ClassLabel's order of classes is kept."""
        check_whole(root)
        named, classes, texts = self.data.columns, dict[str, list[str]](), dict[str, str]()
        columns = [named.label, named.text] if named.text else [named.label]
        names: list[str] | None = None
        for number, row, features in self._rows(root, split, columns):
            where = f"{root}: row {number}"
            names = getattr(features.get(named.label), "names", None)
            classes.setdefault(_class(row[named.label], names, f"{where}: {named.label}"), []).append(_file(number))
            if named.text:
                text = plain_text(row[named.text])
                if text is None:
                    raise UserError(f"{where}: {named.text} is {row[named.text]!r}; expected a text")
                texts[_file(number)] = text
        if not classes:
            raise UserError(f"{root}: no row; is it complete?")
        return Listed(classes, texts, [name for name in names if name in classes] if names else None)

    def shared(self, found: dict[str, Listed], roots: dict[str, Path], same: bool) -> list[str]:
        """All rows, where both are the same split of one file or folder."""
        if not same:
            return []
        with _one_line(roots["train"]):
            splits = self._splits(roots["train"])
            one = self._name(splits, roots["train"], "train") == self._name(splits, roots["train"], "reference")
        return [f"row {int(Path(file).stem)}" for files in found["train"].classes.values() for file in files] if one else []

    def store(self, folder: Path, roots: dict[str, Path], index: dict[str, dict[str, list[Any]]]) -> None:
        for split, root in roots.items():
            place, wanted = folder / IMAGES / split, set(index[split]["files"])
            place.mkdir(parents=True)

            def keep(found: tuple[int, dict[str, Any], object], place: Path = place, root: Path = root) -> None:
                number, row, _ = found
                self._image(row[self.data.columns.image], root, number).save(place / _file(number), compress_level=1)

            rows = (found for found in self._rows(root, split, [self.data.columns.image]) if _file(found[0]) in wanted)
            with ThreadPoolExecutor(DECODERS) as threads:
                while some := list(islice(rows, TOGETHER)):
                    list(threads.map(keep, some))

    def contents(self, folder: Path, split: str, files: list[str], record: Path) -> list[str]:
        return [sha256(folder / IMAGES / split / file) for file in files]

    @staticmethod
    def load(folder: Path, split: str) -> OnDisk:
        return indexed(folder, split, folder / IMAGES / split)

    def _image(self, value: object, root: Path, number: int) -> Any:
        """The RGB image, cropped."""
        from PIL import Image

        from harness.data.reader import decode, read_image

        where = f"{root}, row {number}, {self.data.columns.image}"
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if isinstance(content, bytes):
            image = decode(content, where)
        elif content is None and isinstance(path, str):
            image = read_image(Path(path))
        else:
            raise UserError(f"{where}: no image ({type(value).__name__}); data.columns.image names the one that has it")
        return Image.fromarray(centre_crop(image, self.data.image_size))

    def _rows(self, root: Path, split: str, columns: list[str]) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
        """Number, values of `columns` by their names, and the features of all columns, row by row; images are not decoded."""
        from datasets import Image

        with _one_line(root):
            found = self._split(root, split)
            features = dict(found.features or next(iter(found.take(1)), {}))
            tops = list(dict.fromkeys(column.split(".")[0] for column in columns))
            for top in tops:
                if top not in features:
                    raise UserError(f"{root}: there is no column '{top}'{did_you_mean(top, features)}; it has {', '.join(features)}")
            found = found.select_columns(tops)
            for top in tops:
                if isinstance(features[top], Image):
                    found = found.cast_column(top, Image(decode=False))
            for number, row in enumerate(found):
                yield number, {column: _value(row, column, f"{root}: row {number}") for column in columns}, features

    def _split(self, root: Path, split: str) -> Any:
        """The rows of a split, as they are streamed."""
        splits = self._splits(root)
        return splits[self._name(splits, root, split)]

    def _name(self, splits: dict[str, Any], root: Path, split: str) -> str:
        """What a split is called there."""
        field = "train_split" if split == "train" else "held_out_split"
        name = getattr(self.data, field) or (next(iter(splits)) if len(splits) == 1 else None)
        if name not in splits:
            raise UserError(f"{root}: has the splits {', '.join(splits)}; say which in data.{field}")
        return name

    def _splits(self, root: Path) -> dict[str, Any]:
        from datasets import Dataset, load_dataset, load_from_disk
        from datasets.utils.logging import disable_progress_bar

        disable_progress_bar()
        if any((root / name).is_file() for name in SAVED):
            saved = load_from_disk(str(root))
            parts = {"all": saved} if isinstance(saved, Dataset) else saved
            return {part: rows.to_iterable_dataset() for part, rows in parts.items()}
        if root.is_dir():
            return load_dataset(str(root), streaming=True)
        if root.suffix in BUILDERS:
            return load_dataset(BUILDERS[root.suffix], data_files={"all": [str(root)]}, streaming=True)
        raise UserError(f"{root}: expected a folder, or a file that ends in {', '.join(BUILDERS)}")


@contextmanager
def _one_line(root: Path) -> Iterator[None]:
    """Whatever the library raises of a spoiled file is a UserError."""
    try:
        yield
    except (UserError, GeneratorExit):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{root}: not readable as a dataset ({reason[:300]}); is it complete?") from None


def _file(number: int) -> str:
    return f"{number:08d}.png"


def _value(row: dict[str, Any], column: str, where: str) -> Any:
    """Of a column, or of a field inside one (`json.label`)."""
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{where}: has no {column}")
        value = value[part]
    return value


def _class(value: object, names: list[str] | None, where: str) -> str:
    """The name of a label's class: of a ClassLabel that of its number, else the label itself."""
    name = class_name(value)
    if name is None:
        raise UserError(f"{where} is {value!r}; expected a whole number or a text")
    if names is None:
        return name
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise UserError(f"{where} is {value!r}, none of the {len(names)} classes of the column; has this split labels at all?")
    return names[value]
