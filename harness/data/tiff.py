"""What Pillow leaves unchecked in a TIFF: a directory that is cut off, of which it drops the rest, and strips that leave a part black."""

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile

PLANAR, SEPARATE, SAMPLES = 284, 2, 277  # whether the channels lie apart, and how many there are
LAYOUT = {
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    SAMPLES,
    278,
    279,
    PLANAR,
    317,
    320,
    322,
    323,
    324,
    325,
    338,
    339,
}  # tags that pixels depend on
DIRECTORIES = {  # version -> where the first one's offset is, its format, those of the count and of an entry
    42: (4, "I", "H", "HHII"),
    43: (8, "Q", "Q", "HHQQ"),
}


def check_tiff(image: "TiffImageFile", content: bytes) -> None:
    """ValueError unless the whole of the first page is there. `image` is opened and not loaded."""
    tags = image.tag_v2
    if lost := _directory(content) & LAYOUT - {*tags}:
        raise ValueError(f"TIFF tags {sorted(lost)} are cut off")
    boxes = [tile.extents for tile in image.tile if tile.extents]
    there = sum((right - left) * (low - top) for left, top, right, low in boxes)
    if there < image.width * image.height * (tags.get(SAMPLES, 1) if tags.get(PLANAR) == SEPARATE else 1):
        raise ValueError("TIFF strips are missing")


def _directory(content: bytes) -> set[int]:
    """The tags of the first page."""
    order = "<" if content[:2] == b"II" else ">"
    try:
        where, offset, number, entry = DIRECTORIES[struct.unpack_from(f"{order}H", content, 2)[0]]
        (start,) = struct.unpack_from(order + offset, content, where)
        (count,) = struct.unpack_from(order + number, content, start)
        first, size = start + struct.calcsize(order + number), struct.calcsize(order + entry)
        return {struct.unpack_from(order + entry, content, first + i * size)[0] for i in range(count)}
    except struct.error:
        raise ValueError("the TIFF directory is cut off") from None
