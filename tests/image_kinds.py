"""Image files of every kind, written here or by Pillow, with the RGB values that they are of."""

import io
import struct
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from image_writers import SIDE, bmp, chunk, netpbm, packed, png, text, tiff
from PIL import Image, ImageCms, PngImagePlugin

X, Y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
GREY = (X * 8).astype(np.uint8)  # its mean is 124
RGB = np.stack([X * 8, Y * 8, (X + Y) * 4], axis=2).astype(np.uint8)
HALF = np.where(X < SIDE // 2, 255, 0).astype(np.uint8)  # opaque on the left
INDEX = ((X // 8 + Y // 8) % 4).astype(np.uint8)
PALETTE = np.array([[0, 0, 0], [200, 30, 30], [30, 200, 30], [30, 30, 200]], dtype=np.uint8)
FLOATS = (GREY / 255).astype(np.float32)


@dataclass
class Kind:
    name: str  # with the suffix
    content: bytes
    expected: np.ndarray  # (32, 32, 3) uint8
    off: float = 0  # by how much the mean over pixels may differ


def on_white(rgb, alpha=HALF):
    return np.where(alpha[..., None] > 0, rgb, 255).astype(np.uint8)


def three(grey):
    return np.stack([grey] * 3, axis=2).astype(np.uint8)


def saved(image, kind, **settings):
    """What Pillow writes of an image or array."""
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **settings)
    return file.getvalue()


# --------------------------------------------------------------------------------------------------------------- all kinds


def _pngs():
    for bits in (1, 2, 4, 8, 16):
        top = 2**bits - 1
        samples = (GREY.astype(int) * 257 if bits == 16 else GREY >> (8 - bits)).astype(int)
        grey = three(samples // 257 if bits == 16 else samples * 255 // top)
        clear = int(samples[0, -4])
        yield f"grey{bits}.png", png(samples, bits, 0), grey
        trns = chunk(b"tRNS", struct.pack(">H", clear))
        yield f"grey{bits}-transparent.png", png(samples, bits, 0, trns), on_white(grey, samples != clear)
        if bits <= 8:
            plte = chunk(b"PLTE", PALETTE[: min(4, 2**bits)].tobytes())
            index = INDEX % min(4, 2**bits)
            yield f"palette{bits}.png", png(index, bits, 3, plte), PALETTE[index]
            yield f"palette{bits}-clear.png", png(index, bits, 3, plte, chunk(b"tRNS", b"\0")), on_white(PALETTE[index], index != 0)
            half = np.where(index[..., None] == 0, 255 - 100, PALETTE[index])  # black of alpha 100 / 255
            yield f"palette{bits}-half.png", png(index, bits, 3, plte, chunk(b"tRNS", b"\x64")), half
    for bits, by in ((8, 1), (16, 257)):
        yield f"rgb{bits}.png", png(RGB * np.uint16(by), bits, 2), RGB
        yield f"rgba{bits}.png", png(np.dstack([RGB, HALF]) * np.uint16(by), bits, 6), on_white(RGB)
        yield f"la{bits}.png", png(np.dstack([GREY, HALF]) * np.uint16(by), bits, 4), on_white(three(GREY))
    first = chunk(b"tRNS", struct.pack(">HHH", *RGB[5, 7].tolist()))
    yield "rgb8-transparent.png", png(RGB, 8, 2, first), on_white(RGB, (RGB[5, 7] != RGB).any(axis=2))
    yield "ramp.png", png(X * 2048, 16, 0), three(GREY)
    yield "low-bytes.png", png(X * 2048 + 255, 16, 0), three(GREY)
    yield "interlaced.png", png(RGB, 8, 2, interlaced=True), RGB
    yield "interlaced-grey16.png", png(X * 2048, 16, 0, interlaced=True), three(GREY)
    yield "many-parts.png", png(RGB, 8, 2, parts=9), RGB
    yield "gamma.png", png(RGB, 8, 2, chunk(b"gAMA", struct.pack(">I", 100000))), RGB
    yield "trailing.png", png(RGB, 8, 2) + b"rest", RGB
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 1000, zip=True)
    yield "profile.png", saved(RGB, "PNG", icc_profile=profile, pnginfo=info), RGB
    yield "turned.png", saved(RGB, "PNG", exif=turned()), RGB
    yield "animated.apng", saved(RGB, "PNG", save_all=True, append_images=[Image.fromarray(255 - RGB)]), RGB
    yield "a-png.JPEG", png(RGB, 8, 2), RGB


def turned():
    exif = Image.Exif()
    exif[274] = 6
    return exif


def _lossy():
    """Within the loss."""
    profile = bytes(2**21)
    yield "grey.jpg", saved(GREY, "JPEG", quality=95), three(GREY)
    for name, settings in {
        "444.jpg": {"subsampling": 0},
        "422.jpe": {"subsampling": 1},
        "420.JPEG": {"subsampling": 2},
        "progressive.jfif": {"progressive": True},
        "rgb.jpg": {"keep_rgb": True},
        "turned.jpg": {"exif": turned()},
        "profile.jpg": {"icc_profile": profile},
        "comment.jpg": {"comment": b"a" * 60000},
        "restarts.jpg": {"restart_marker_blocks": 1},
    }.items():
        yield name, saved(RGB, "JPEG", quality=95, **settings), RGB
    yield "trailing.jpg", saved(RGB, "JPEG", quality=95) + b"rest", RGB
    yield "cmyk.jpg", saved(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95), RGB
    yield "two.jpg", saved(RGB, "MPO", save_all=True, append_images=[Image.fromarray(255 - RGB)], quality=95), RGB
    yield "lossy.webp", saved(RGB, "WEBP", quality=95), RGB
    yield "lossy-alpha.webp", saved(np.dstack([RGB, HALF]), "WEBP", quality=95), on_white(RGB)
    yield "lossy.avif", saved(RGB, "AVIF", quality=95), RGB
    yield "444.avif", saved(RGB, "AVIF", quality=95, subsampling="4:4:4"), RGB
    yield "alpha.avif", saved(np.dstack([RGB, HALF]), "AVIF", quality=95), on_white(RGB)
    yield "animated.avif", saved(RGB, "AVIF", quality=95, save_all=True, append_images=[Image.fromarray(255 - RGB)]), RGB
    yield "jpeg.tif", saved(RGB, "TIFF", compression="jpeg", quality=95), RGB
    yield "lab.tif", saved(Image.fromarray(RGB).convert("LAB"), "TIFF"), RGB
    yield "ycbcr.tif", saved(Image.fromarray(RGB).convert("YCbCr"), "TIFF"), RGB


def _tiffs():
    for order in "<>":
        end = "II" if order == "<" else "MM"
        for bits in (1, 2, 4, 8, 16):
            samples = (GREY.astype(int) * 257 if bits == 16 else GREY >> (8 - bits)).astype(int)
            grey = three(samples // 257 if bits == 16 else samples * 255 // (2**bits - 1))
            data = b"".join(packed(samples, bits, order))
            yield f"grey{bits}-{end}.tif", tiff(data, bits, 1, order), grey
            if (bits, order) != (16, ">"):  # Pillow knows no such mode: refused
                yield f"white-is-zero{bits}-{end}.tif", tiff(data, bits, 0, order), 255 - grey
                yield f"white-is-zero{bits}-{end}-deflate.tif", tiff(zlib.compress(data), bits, 0, order, compression=8), 255 - grey
        yield f"float-{end}.tif", tiff(FLOATS.astype(f"{order}f4").tobytes(), 32, 1, order, sample=3), three(GREY)
        yield f"float-white-is-zero-{end}.tif", tiff(FLOATS.astype(f"{order}f4").tobytes(), 32, 0, order, sample=3), three(255 - GREY)
        deep = (RGB * np.uint16(257)).astype(f"{order}u2").tobytes()
        yield f"rgb16-{end}.tiff", tiff(deep, 16, 2, order, samples=3), RGB
        la = np.dstack([GREY, HALF]).tobytes()
        yield f"la-{end}.tiff", tiff(la, 8, 1, order, samples=2, extra=2), on_white(three(GREY))
        rgba = np.dstack([RGB, HALF]).tobytes()
        yield f"rgba-{end}.tiff", tiff(rgba, 8, 2, order, samples=4, extra=2), on_white(RGB)
        for big in (False, True)[: 2 if order == "<" else 1]:  # Pillow reads no big-endian BigTIFF
            yield f"strips-{end}-{big}.tiff", tiff(RGB.tobytes(), 8, 2, order, samples=3, strips=4, big=big), RGB
            channels = np.moveaxis(RGB, 2, 0).tobytes()
            yield f"channels-{end}-{big}.tiff", tiff(channels, 8, 2, order, samples=3, strips=3, big=big), RGB
        yield f"rgbx-{end}.tiff", tiff(rgba, 8, 2, order, samples=4, extra=0), RGB
    yield "grey12-II.tif", tiff(b"".join(packed(X * 128, 12)), 12, 1), three(GREY)
    for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"):
        yield f"{how}.tif", saved(RGB, "TIFF", compression=how), RGB
        yield f"{how}-16.tif", saved((X * 2048).astype(np.uint16), "TIFF", compression=how), three(GREY)
    yield "fax.tif", saved(Image.fromarray(HALF).convert("1"), "TIFF", compression="group4"), three(HALF)
    yield "cmyk.tif", saved(Image.fromarray(RGB).convert("CMYK"), "TIFF"), RGB
    yield "pages.tif", saved(RGB, "TIFF", save_all=True, append_images=[Image.fromarray(255 - RGB)]), RGB
    yield "palette.tif", saved(palette(), "TIFF"), PALETTE[INDEX]


def palette():
    image = Image.fromarray(INDEX, "L")
    image.putpalette(PALETTE.tobytes())
    return image


def _others():
    colours = b"".join(bytes([*colour[::-1].tolist(), 0]) for colour in PALETTE)
    up, bgr = INDEX[::-1], RGB[::-1, :, ::-1]
    yield "palette.gif", saved(palette(), "GIF"), PALETTE[INDEX]
    yield "straight.gif", saved(palette(), "GIF", interlace=0), PALETTE[INDEX]
    yield "clear.gif", saved(palette(), "GIF", transparency=0), on_white(PALETTE[INDEX], INDEX != 0)
    yield "grey.gif", saved(GREY, "GIF"), three(GREY)
    yield "animated.gif", saved(palette(), "GIF", save_all=True, append_images=[Image.fromarray(255 - RGB)]), PALETTE[INDEX]
    yield "lossless.webp", saved(RGB, "WEBP", lossless=True), RGB
    yield "alpha.webp", saved(np.dstack([RGB, HALF]), "WEBP", lossless=True), on_white(RGB)
    yield "animated.webp", saved(RGB, "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(255 - RGB)]), RGB
    yield "turned.webp", saved(RGB, "WEBP", lossless=True, exif=turned()), RGB
    yield "bits1.bmp", saved(Image.fromarray(HALF).convert("1"), "BMP"), three(HALF)
    yield "bits4.bmp", bmp(packed(up, 4), 4, colours=colours), PALETTE[INDEX]
    yield "bits8.bmp", bmp(packed(up, 8), 8, colours=colours), PALETTE[INDEX]
    yield "bits24.bmp", bmp(packed(bgr, 8), 24), RGB
    yield "top-down.bmp", bmp(packed(RGB[..., ::-1], 8), 24, height=-SIDE), RGB
    yield "bits32.bmp", bmp(packed(np.dstack([bgr, HALF]), 8), 32), RGB  # the fourth byte means nothing here
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    yield "alpha.bmp", bmp(packed(np.dstack([bgr, HALF]), 8), 32, compression=3, masks=masks), on_white(RGB)
    fives = (RGB >> 3).astype(int)
    words = fives[..., 0] << 10 | fives[..., 1] << 5 | fives[..., 2]
    yield "bits16.bmp", bmp(packed(words[::-1], 16, "<"), 16), fives * 255 // 31
    runs = [b"".join(bytes([8, row[x]]) for x in range(0, SIDE, 8)) + b"\0\0" for row in up]
    yield "runs.bmp", bmp([*runs, b"\0\1"], 8, compression=1, colours=colours), PALETTE[INDEX]
    yield "plain1.pbm", f"P1 {SIDE} {SIDE}\n".encode() + text((HALF == 0).astype(int)), three(HALF)
    yield "plain4.pbm", f"P4 {SIDE} {SIDE}\n".encode() + b"".join(packed((HALF == 0).astype(int), 1)), three(HALF)
    yield "plain2.pgm", netpbm("P2", 65535, text(X * 2048)), three(GREY)
    yield "grey.pgm", netpbm("P5", 255, GREY.tobytes()), three(GREY)
    yield "grey4.pgm", netpbm("P5", 31, X.astype(np.uint8).tobytes()), three(np.round(X * 255 / 31))
    yield "grey10.pgm", netpbm("P5", 1023, (X * 33).astype(">u2").tobytes()), three(X * 33 * 65535 // 1023 >> 8)
    yield "grey16.pgm", netpbm("P5", 65535, (X * 2048).astype(">u2").tobytes()), three(GREY)
    yield "plain3.ppm", netpbm("P3", 255, text(RGB)), RGB
    yield "rgb.pnm", netpbm("P6", 255, RGB.tobytes()), RGB
    yield "rgb16.ppm", netpbm("P6", 65535, (RGB * np.uint16(257)).astype(">u2").tobytes()), RGB


@cache
def valid():
    """Every file that is read, and what it is of."""
    exact = [Kind(name, content, expected) for part in (_pngs, _tiffs, _others) for name, content, expected in part()]
    return exact + [Kind(name, content, expected, off=3) for name, content, expected in _lossy()]


@cache
def refused():
    """(name, content, words of the reason) of files that are not read."""
    long_text = PngImagePlugin.PngInfo()
    long_text.add_text("comment", "a" * 2**21, zip=True)
    outside, missing = FLOATS * 255, FLOATS.copy()
    missing[3, 3] = np.nan
    deep = (X * 2048).astype("<i4").tobytes()
    clear = chunk(b"tRNS", struct.pack(">HHH", 0, 0, 0))
    la = np.dstack([GREY, HALF]).tobytes()
    return [
        ("empty.png", b"", "empty file"),
        ("text.jpg", b"no image", "no sound header"),
        ("page.jpg", b"<!doctype html><title>404</title>", "no sound header"),
        ("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>", "no sound header"),
        ("program.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\nshowpage\n", "no sound header"),
        ("resource-fork.png", b"\0\5\x16\7\0\2\0\0Mac OS X        ", "no sound header"),
        ("signed.tif", tiff((X * 1000).astype("<i2").tobytes(), 16, 1, sample=2), "mode I, integers whose range"),
        ("int32.tif", tiff(deep, 32, 1, sample=2), "mode I, integers whose range"),
        ("uint32.tif", tiff(deep, 32, 1), "mode I, integers whose range"),
        ("outside.tif", tiff(outside.astype("<f4").tobytes(), 32, 1, sample=3), "mode F, with values outside"),
        ("below.tif", tiff((FLOATS - 0.1).astype("<f4").tobytes(), 32, 1, sample=3), "mode F, with values outside"),
        ("missing.tif", tiff(missing.astype("<f4").tobytes(), 32, 1, sample=3), "mode F, with values outside"),
        ("white-is-zero16-MM.tif", tiff((X * 2048).astype(">u2").tobytes(), 16, 0, ">"), "no sound header"),
        ("premultiplied.tif", tiff(la, 8, 1, samples=2, extra=1), "mode La"),
        ("rgb16-transparent.png", png(RGB * np.uint16(257), 16, 2, clear), "mode RGB of 16 bits, with a transparent colour"),
        ("missing-strips.tif", tiff(RGB.tobytes(), 8, 2, samples=3, strips=4, height=SIDE + 1), "TIFF strips are missing"),
        ("missing-channel.tif", tiff(RGB.tobytes(), 8, 2, samples=3, strips=3, height=SIDE + 1), "TIFF strips are missing"),
        ("directory.tif", tiff(la, 8, 1, samples=2, extra=2)[:-10], "the TIFF directory is cut off"),
        ("thin.png", png(RGB, 8, 2, size=(100000, 1)), "100000 x 1 pixels"),
        ("bomb.png", png(RGB, 8, 2, size=(40000, 40000)), "exceeds limit"),
        ("flat.png", png(RGB, 8, 2, size=(0, SIDE)), "no sound header"),
        ("flat.ppm", b"P6\n0 32\n255\n", "no sound header"),
        ("long-text.png", saved(RGB, "PNG", pnginfo=long_text), "MAX_TEXT"),
        ("long-profile.png", saved(RGB, "PNG", icc_profile=bytes(2**21)), "MAX_TEXT"),
    ]
