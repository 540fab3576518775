"""Whether shards are whole: a tar or an Arrow stream that is cut off between two entries is read as a shorter one, without a word."""

import os
import tarfile
from pathlib import Path

from harness.store.asset_files import facts_of
from harness.study.typed import UserError

END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)  # POSIX's ustar: two blocks of zeros
ENDS_OF_ARROW = (b"\xff\xff\xff\xff\0\0\0\0", b"ARROW1")  # of a stream, of a file (arrow.apache.org/docs/format/Columnar.html)


def check_whole(root: Path) -> None:
    """UserError names the first tar or Arrow file at or below `root` that lacks the mark of its end; hidden ones are nobody's."""
    for name in facts_of(root):
        path = root / name if name else root
        ends = path.name.split(".")[1:]
        try:
            whole = _tar_ends(path) if "tar" in ends else _arrow_ends(path) if ends[-1:] == ["arrow"] else True
        except (OSError, EOFError, tarfile.TarError) as error:
            raise UserError(f"{path}: not a readable shard ({error}); get it again") from None
        if not whole:
            raise UserError(f"{path}: is cut off: it lacks the mark of its end, so that images may be missing; get it again")


def _tar_ends(path: Path) -> bool:
    with tarfile.open(path, "r:*") as tar:
        tar.getmembers()
        file = tar.fileobj
        return file is not None and file.seek(tar.offset) == tar.offset and file.read(len(END_OF_TAR)) == END_OF_TAR


def _arrow_ends(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(ENDS_OF_ARROW[0])), os.SEEK_SET)
        return file.read().endswith(ENDS_OF_ARROW)
