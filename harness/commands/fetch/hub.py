"""Files on the Hugging Face hub, by its own library: where one is, which version, how large, with which sha256, and as whom we ask.

The bytes come by `download`, not by hf_hub_download: huggingface_hub 2.4 removes what it has of a file when a download is stopped.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from harness import __version__
from harness.commands.fetch.download import GoneError, Remote
from harness.study.typed import UserError

ASKED_BY = {"library_name": "dsr-harness", "library_version": __version__}


@contextmanager
def online() -> Iterator[None]:
    """Lift the hub library's offline switch, which `harness/__init__.py` sets, to the end of the block."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, False
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def endpoint() -> str:
    """Of the hub, or of the mirror that HF_ENDPOINT names."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def on_hub(repository: str, file: str, *, sha256: Mapping[str, str], size: int | None) -> Remote:
    """A file of a repository as it is now, at the address of its commit. `sha256` (who states it -> digest), `size`: as stated elsewhere.

    UserError, in one line, where the hub does not give it: GoneError where the repository has no such file.
    """
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    where, what = endpoint(), f"{repository}: {file}"
    try:
        facts = get_hf_file_metadata(hf_hub_url(repository, file, endpoint=where), endpoint=where, timeout=20, **ASKED_BY)
    except errors.GatedRepoError:
        raise UserError(
            f"{what}: its authors ask that terms be accepted: do so at {where}/{repository}, then log in (`hf auth login`, or HF_TOKEN)"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{what}: {where} has no such repository, or it is private (`hf auth login`)") from None
    except errors.EntryNotFoundError:
        raise GoneError(f"{what}: the repository has no such file") from None
    except (errors.HTTPError, OSError, errors.HFValidationError) as error:
        raise UserError(f"{what}: {where} does not give it: {str(error).strip() or type(error).__name__}") from None
    digest = facts.etag if facts.etag and re.fullmatch("[0-9a-f]{64}", facts.etag) else None  # of what git itself holds it is another hash
    stated = dict(sha256) | ({"the hub": digest} if digest else {})
    for who, other in sha256.items():
        if digest and not digest.startswith(other):
            raise UserError(f"{what}: is another file by now, of sha256 {digest[:16]}..., {who} says {other[:16]}...; nothing was taken")
    if facts.size is not None and size not in (None, facts.size):
        raise UserError(f"{what}: has {facts.size:,} bytes, {size:,} are stated; it is another file: nothing was taken")
    return Remote(
        hf_hub_url(repository, file, revision=facts.commit_hash, endpoint=where),
        build_hf_headers(**ASKED_BY),
        version=facts.commit_hash,
        bytes=facts.size if facts.size is not None else size,
        sha256=stated,
    )
