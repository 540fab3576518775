"""Progress of whatever takes more than a few seconds: rate and time left, on stderr."""

import sys
import time


def _rank() -> int:
    """Of this process; where torch is not loaded, as in report/, there is one."""
    if "torch" not in sys.modules:
        return 0
    from harness.machine import processes

    return processes.rank()


class Progress:
    """One line every `every` seconds: done, rate, time left. Lines, because jobs run side by side and into logs.

    Of the processes that share a stage, the first one speaks.
    """

    def __init__(self, what: str, total: int, unit: str = "steps", start: int = 0, every: float = 5.0) -> None:
        self.what, self.total, self.unit, self.start, self.every = what, total, unit, start, every
        self.began = self.spoke = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Say how far it is, if the last time is long enough ago."""
        now = time.monotonic()
        if now - self.spoke < self.every or done == self.start or _rank():
            return
        self.spoke = now
        rate = (done - self.start) / (now - self.began)
        left = (self.total - done) / rate
        print(
            f"{self.what}: {done}/{self.total} {self.unit}, {rate:.3g}/s, {left // 60:.0f}:{left % 60:02.0f} left{note}",
            file=sys.stderr,
            flush=True,
        )
