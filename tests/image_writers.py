"""Image files written byte by byte, of layouts that Pillow does not write."""

import struct
import zlib

import numpy as np

SIDE = 32


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(samples, bits, order=">"):
    """Rows (H, ...) of unsigned samples, as bytes."""
    rows = samples.reshape(len(samples), -1)
    if bits in (8, 16, 32):
        return [row.astype(f"{order}u{bits // 8}").tobytes() for row in rows]
    spread = (rows[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8)
    return [np.packbits(row.reshape(-1)).tobytes() for row in spread]


def png(samples, bits, kind, *extra, size=(SIDE, SIDE), parts=1, interlaced=False):
    """A PNG of samples (H, W) or (H, W, C); `extra`: chunks before the image data."""
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        lines = [row for y, x, down, right in passes for row in packed(samples[y::down, x::right], bits)]
    else:
        lines = packed(samples, bits)
    data = zlib.compress(b"".join(b"\0" + line for line in lines))
    step = -(-len(data) // parts)
    idats = [chunk(b"IDAT", data[i : i + step]) for i in range(0, len(data), step)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, int(interlaced)))
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *extra, *idats]) + chunk(b"IEND", b"")


def tiff(data, bits, photometric, order="<", sample=1, compression=1, samples=1, extra=None, strips=1, height=SIDE, big=False):
    """A TIFF; `sample`: its format (1 unsigned, 2 signed, 3 float). Where there are as many strips as samples, each is a channel."""
    base, each, apart = 16 if big else 8, len(data) // strips, strips == samples > 1
    tags = [(256, 4, [SIDE]), (257, 4, [height]), (258, 3, [bits] * samples), (259, 3, [compression]), (262, 3, [photometric])]
    tags += [(273, 4, [base + i * each for i in range(strips)]), (277, 3, [samples]), (278, 4, [SIDE if apart else SIDE // strips])]
    tags += [(279, 4, [each] * strips), (284, 3, [2 if apart else 1])]
    tags += [*([] if extra is None else [(338, 3, [extra])]), (339, 3, [sample] * samples)]
    word, number, room = ("Q", "Q", 8) if big else ("I", "H", 4)
    start = base + len(data) + len(data) % 2
    after, entries, values = start + struct.calcsize("=" + number) + (4 + 2 * room) * len(tags) + room, b"", b""
    for tag, kind, value in tags:
        content = struct.pack(f"{order}{len(value)}{'HI'[kind - 3]}", *value)
        entries += struct.pack(f"{order}HH{word}", tag, kind, len(value))
        if len(content) > room:
            entries += struct.pack(order + word, after + len(values))
            values += content
        else:
            entries += content.ljust(room, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + ("HHHQ" if big else "HI"), *([43, 8, 0, start] if big else [42, start]))
    return head + data.ljust(start - base, b"\0") + struct.pack(order + number, len(tags)) + entries + bytes(room) + values


def bmp(rows, bits, compression=0, masks=b"", height=SIDE, colours=b""):
    """A BMP of rows as they stand in the file (the last one first, but where `height` is negative)."""
    data = b"".join(rows)
    start = 14 + 40 + len(masks) + len(colours)
    header = struct.pack("<IiiHHIIiiII", 40 + len(masks), SIDE, height, 1, bits, compression, len(data), 0, 0, len(colours) // 4, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + masks + colours + data


def netpbm(magic, maxval, data):
    return f"{magic}\n# a comment\n{SIDE} {SIDE}\n{maxval}\n".encode() + data


def text(values):
    return " ".join(str(value) for value in values.reshape(-1)).encode()
