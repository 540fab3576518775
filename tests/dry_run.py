"""Dry runs of Snakemake in forks of a process that has imported it and read the code of every stage: both take longer than a plan.

Run as a program, it reads lines of JSON, each with the arguments and two files for what is printed, and answers each with the exit code.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


class DryRuns:
    """Called with Snakemake's arguments: what `snakemake ...` would give in the project in `root`."""

    def __init__(self, root):
        self.server = subprocess.Popen(
            [sys.executable, "-P", __file__],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        atexit.register(self.close)

    def __call__(self, *arguments):
        if not {"-n", "--dry-run"} & {*arguments}:
            raise ValueError(f"only dry runs: {arguments}")
        with tempfile.TemporaryDirectory() as folder:
            printed = [Path(folder, name) for name in ("out", "err")]
            print(json.dumps([arguments, *map(str, printed)]), file=self.server.stdin, flush=True)
            code = int(self.server.stdout.readline())
            return subprocess.CompletedProcess(arguments, code, *(path.read_text(encoding="utf-8") for path in printed))

    def close(self):
        self.server.communicate()
        atexit.unregister(self.close)


def serve():
    from snakemake.cli import get_argument_parser, main

    from harness.store.code import sources
    from harness.workflow.stages import STAGES

    get_argument_parser()
    for stage in STAGES.values():
        sources(stage.module)
    for line in sys.stdin:
        arguments, *printed = json.loads(line)
        child = os.fork()
        if child == 0:
            for descriptor, path in zip((1, 2), printed, strict=True):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
            main(arguments)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
