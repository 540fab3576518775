"""The one reader of image files: bytes to RGB of 8 bits, of the right value, or a UserError that names the file and what is wrong.

The first bytes say the format, not the name. As with the field's loaders, EXIF orientation and colour profiles are not applied (ImageNet's
references are made so), CMYK is Adobe's in a JPEG (inverted), and of an animation or several pages the first is read. Beyond them:
- what is transparent shows white;
- of 16 bits the high eight are taken, as libpng does (of 12 too), so that 8 bits that were stored as 16 come back;
- floats are read where all lie in [0, 1]; integers of 32 bits, whose range a TIFF does not say, are refused;
- a PNG's checksums and a TIFF's strips are checked, and nothing is read in part.
"""

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data.tiff import check_tiff
from harness.study.typed import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "PPM")  # none that runs a program, as EPS does
EIGHT_BITS = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB")
ALPHA = ("LA", "PA", "RGBA")
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # TIFF's tags
GREY, COLOUR = 0, 2  # PNG's colour types
LONGEST = 1000  # times the short side; the square that is cut out of it would be made of an image that fits into no memory
AGAIN = "and run the same command again"


class _UntoldError(ValueError):
    """A sound image whose values cannot be told."""


def read_image(path: Path) -> "Image":
    """The RGB image of a file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{printable(path)}: not a readable image ({error.strerror}); mend that {AGAIN}") from None
    return decode(content, path)


def decode(content: bytes, name: Path | str) -> "Image":
    """The RGB image of a file's bytes; `name` is for the error."""
    from PIL import Image, UnidentifiedImageError

    advice = f"put a good copy in its place {AGAIN}"
    try:
        return _decode(content)
    except UnidentifiedImageError:
        reason, advice = f"no sound header of {', '.join(FORMATS)}", f"is it foreign? remove it, or {advice}"
    except Image.DecompressionBombError as error:
        reason, advice = str(error), f"scale it down, or remove it, {AGAIN}"
    except _UntoldError as error:
        reason, advice = str(error), f"save it with 8 bits a channel, or remove it, {AGAIN}"
    except Exception as error:  # whatever Pillow's plugins are led to by the bytes
        reason = str(error) or type(error).__name__
        if "MAX_TEXT" in reason:  # of a text, or of a colour profile
            advice = f"save it without its long text or colour profile, or remove it, {AGAIN}"
    raise UserError(f"{printable(name)}: not a readable image ({printable(' '.join(reason.split()))}); {advice}")


@cache
def formats() -> tuple[str, ...]:
    """Of FORMATS, those that this Pillow knows."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def printable(name: Path | str) -> str:
    """A file's name on one line, whatever bytes it is of."""
    text = str(name)
    return text if text.isprintable() else ascii(text)[1:-1]


def _decode(content: bytes) -> "Image":
    from PIL import Image, ImageFile, TiffImagePlugin

    if not content:
        raise ValueError("empty file")
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # other code may have set it, and half an image would be read
    with Image.open(io.BytesIO(content), formats=formats()) as image:
        if max(image.size) > LONGEST * min(image.size):
            raise ValueError(f"{image.width} x {image.height} pixels")
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            check_tiff(image, content)
        if image.format == "PNG":
            with Image.open(io.BytesIO(content)) as twin:
                twin.verify()
        image.load()
        if image.mode in ("F", "I") or image.mode.startswith("I;16"):
            return _deep(image)
        if image.mode in ALPHA or "transparency" in image.info:
            _scale_transparency(image, content)
            rgba = image.convert("RGBA")
            return _on_white(rgba.convert("RGB"), rgba.getchannel("A"))
        if image.mode not in EIGHT_BITS:
            raise _UntoldError(f"mode {image.mode}")
        return image.convert("RGB")


def _on_white(image: "Image", alpha: "Image") -> "Image":
    from PIL import Image

    return Image.composite(image, Image.new("RGB", image.size, "white"), alpha)


def _deep(image: "Image") -> "Image":
    """The RGB image of one with more than 8 bits, which is grey."""
    from PIL import Image

    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "F":
        if not ((values >= 0) & (values <= 1)).all():  # NaN is neither
            raise _UntoldError("mode F, with values outside of [0, 1]")
        grey = np.round(values * 255).astype(np.uint8)
    elif image.mode == "I" and image.format != "PPM":  # Pillow scales a PPM to 16 bits
        raise _UntoldError("mode I, integers whose range the file does not say")
    else:
        grey = (values >> (tags.get(BITS, (16,))[0] - 8)).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow inverts up to 8 bits
        grey = 255 - grey
    rgb, clear = Image.fromarray(grey).convert("RGB"), image.info.get("transparency")
    return rgb if clear is None else _on_white(rgb, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))


def _scale_transparency(image: "Image", content: bytes) -> None:
    """A PNG names its transparent colour in its own bits; Pillow's pixels have 8."""
    clear = image.info.get("transparency")
    if image.format != "PNG" or clear is None:
        return
    bits, kind = content[24], content[25]
    if kind == GREY and bits in (2, 4):
        image.info["transparency"] = clear * 255 // (2**bits - 1)
    elif kind == COLOUR and bits == 16:
        raise _UntoldError("mode RGB of 16 bits, with a transparent colour")
