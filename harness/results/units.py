"""Numbers with a prefix, three significant digits: 73.1 EFLOP, 1.50 GB."""

import math


def bytes_text(size: float) -> str:
    return scaled(size, 1000, ["B", "kB", "MB", "GB", "TB", "PB"])


def scaled(value: float, base: int, units: list[str]) -> str:
    """`value` in the largest of `units`, each `base` of the one before, that leaves a digit before the point; of nothing, a dash."""
    if not value:
        return "–"
    power = min(int(math.log(value, base) + 1e-9), len(units) - 1)
    number = value / base**power
    return f"{number:,.{max(0, 2 - int(math.log10(number)))}f} {units[power]}"
