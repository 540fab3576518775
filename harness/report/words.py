"""How claims write their numbers."""


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """With a true minus sign."""
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def seeds_text(count: int) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{count} seed{'s' * (count != 1)}"


def p_text(p: float) -> str:
    """`< 0.001`, or `= ` and the digits that matter."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"
