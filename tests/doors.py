"""The pages that a newcomer opens, and what stands in them."""

import re
import shlex
from functools import cache

from harness.study.typed import ROOT

FOLDERS = ("baselines", "envs", "harness", "harness/studies", "reports", "tests")  # each has a README.md of its own
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob(".github/**/*.md"), *(ROOT / folder / "README.md" for folder in FOLDERS))
)


@cache
def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(name), re.DOTALL | re.MULTILINE)


def links(name):
    """Of a page, but those to other places."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text_of(name)) if not link.startswith("http")]


def commands(name):
    """The words of each command in a page's sh blocks, in order."""
    return [words for block in blocks(name, "sh") for line in block.replace("\\\n", " ").splitlines() for words in commands_of(line)]


def commands_of(line):
    """The words of each of the commands that `&&` joins."""
    commands = [[]]
    for word in shlex.split(line, comments=True):
        commands += [[]] if word == "&&" else []
        commands[-1] += [word] if word != "&&" else []
    return [tuple(words) for words in commands if words]
