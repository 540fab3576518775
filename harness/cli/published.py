"""Commands on published files: `dsr models` lists them, `dsr fetch` gets those that a study lacks."""

import argparse

from harness.cli.adding import Add, add_assets
from harness.study.study import load_study

NO_NETWORK = """Nothing is asked of the network. A size or sha256 is shown where somebody states it; who does stands beside the address.
Where nobody states a sha256, the one that a file has at its first use is recorded with the results, and compared from then on."""
FETCH = """It names every file, its host and its size, and asks before the first byte. Ctrl-C or a lost connection keeps what came, in
FILE.part beside FILE; the same command goes on there. A file appears in its place whole, once its size and sha256 were compared
with what is stated; none that is there is overwritten. The hub knows you as you are logged in there (`hf auth login`, HF_TOKEN);
HF_ENDPOINT names a mirror. Images of ImageNet, and what is offered to a browser alone, are left to you: it says where they are
and what to put where.

  dsr fetch imagenet256_siglip2_b --dry-run                  what is missing, and from where; no network
  dsr fetch imagenet256_siglip2_b --assets /data/dsr --yes   get it, without a question"""


def models(a: argparse.Namespace) -> int:
    from harness.commands.models import models as known
    from harness.commands.models import render

    print(render(known(a.of, root=a.assets, check=a.check), a.json))
    return 0


def fetch(a: argparse.Namespace) -> int:
    from harness.commands.fetch.command import fetch as get

    return get(load_study(a.name), root=a.assets, yes=a.yes, dry_run=a.dry_run)


def add_published(add: Add) -> None:
    sub = add("models", models, "published files that studies name or loaders read: what, where from, where to put it, whether it is here")
    sub.epilog = NO_NETWORK
    sub.add_argument("--study", dest="of", metavar="NAME", help="files of one study alone (default: of all, and those that none names)")
    sub.add_argument("--json", action="store_true", help="for programs: a list with a mapping a file")
    sub.add_argument("--check", action="store_true", help="hash every file whose sha256 is stated, however large")
    add_assets(sub)
    sub = add("fetch", fetch, "get the files that a study lacks, after asking: the one command that uses the network")
    sub.formatter_class, sub.epilog = argparse.RawDescriptionHelpFormatter, FETCH
    sub.add_argument("name", metavar="STUDY", help="a file in harness/studies/, without .yaml")
    sub.add_argument("--yes", action="store_true", help="do not ask; needed where there is no terminal")
    sub.add_argument("--dry-run", action="store_true", help="say what is missing, with host and size; no network")
    add_assets(sub)
