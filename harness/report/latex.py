"""Text as LaTeX: ASCII where LaTeX has a command for it; other letters stay as they are, for LuaLaTeX or XeLaTeX. None is lost."""

import re
import unicodedata

from harness.study.typed import digest

GREEK_CAPITALS = ("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega")  # the others look Latin
GREEK = {
    **{"ϵ": r"\epsilon", "ε": r"\varepsilon", "ϕ": r"\phi", "φ": r"\varphi", "ϑ": r"\vartheta", "ϱ": r"\varrho", "ϖ": r"\varpi"},
    **{"ς": r"\varsigma", "ο": "o", "µ": r"\mu"},
    **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧ", (rf"\mathrm{{{letter}}}" for letter in "ABEZHIKMNOPTX"), strict=True)),
}
for _letter in map(chr, (*range(0x391, 0x3A2), *range(0x3A3, 0x3AA), *range(0x3B1, 0x3CA))):
    _name = unicodedata.name(_letter).split()[-1].replace("LAMDA", "LAMBDA")
    GREEK.setdefault(_letter, f"\\{_name.capitalize() if _letter.isupper() else _name.lower()}")
MATHS = GREEK | {
    "<": "<", ">": ">", "|": "|", "↓": r"\downarrow", "↑": r"\uparrow", "←": r"\leftarrow", "→": r"\rightarrow", "↔": r"\leftrightarrow",
    "⇒": r"\Rightarrow", "⇔": r"\Leftrightarrow", "×": r"\times", "÷": r"\div", "±": r"\pm", "∓": r"\mp", "−": "-", "·": r"\cdot",
    "∞": r"\infty", "≤": r"\leq", "≥": r"\geq", "≠": r"\neq", "≈": r"\approx", "≡": r"\equiv", "∼": r"\sim", "∝": r"\propto",
    "≪": r"\ll", "≫": r"\gg", "∈": r"\in", "∉": r"\notin", "∅": r"\emptyset", "⊂": r"\subset", "∩": r"\cap", "∪": r"\cup",
    "∂": r"\partial", "∇": r"\nabla", "∑": r"\sum", "∏": r"\prod", "∫": r"\int", "√": r"\surd", "∘": r"\circ", "°": r"^\circ",
    "⊕": r"\oplus", "⊗": r"\otimes", "‖": r"\Vert", "⟨": r"\langle", "⟩": r"\rangle", "ℓ": r"\ell", "ℝ": r"\mathbf{R}",
}  # fmt: skip
TEXT = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "#": r"\#", "%": r"\%", "&": r"\&", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''",
    "…": r"\ldots{}", "§": r"\S{}", "¶": r"\P{}", "†": r"\dag{}", "‡": r"\ddag{}", "©": r"\copyright{}", "£": r"\pounds{}",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}",
    "ı": r"\i{}", "¡": "!`", "¿": "?`", "⁄": "/", "\0": "{}", "\u00a0": "~",
}  # fmt: skip
ACCENTS = dict(zip(
    "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0323\u0327\u0328\u0331",
    ("`", "'", "^", "~", "=", "u", ".", '"', "r", "H", "v", "d", "c", "k", "b"), strict=True,
))  # fmt: skip
RAISED = re.compile(r"\\textasciicircum\{\}([A-Z]+)")  # as in DiT^DH
CLUSTER = re.compile(r"(?s:.)[\u0300-\u036f]*")  # a character and its accents


def escape(text: str) -> str:
    """Text as LaTeX. What no text is made of (controls, halves of a pair) is a space."""
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in unicodedata.normalize("NFC", text))
    text = re.sub("-(?=-)", "-\0", text)  # two of them would be a dash
    return RAISED.sub(r"\\textsuperscript{\1}", "".join(map(_character, CLUSTER.findall(text))))


def needs(*texts: str) -> list[str]:
    """A comment that names the characters of LaTeX texts which pdfLaTeX does not know; nothing where there is none."""
    beyond = sorted({c for text in texts for c in text if not c.isascii()})
    return [f"% Needs LuaLaTeX or XeLaTeX, and a font that has: {' '.join(beyond)}"] * bool(beyond)


def label(text: str) -> str:
    r"""For `\label`: lower-case words joined by dashes, and a mark of what is lost of other characters."""
    plain, words = text.lower().replace(" ", "-"), re.sub("[^a-z0-9]+", "-", text.lower())
    return words if words == plain else f"{words}-{digest(text)[:6]}"


def first_in_row(text: str) -> str:
    r"""Guarded where `\\`, `\toprule` or `\midrule` before it would take a bracket or a star for an argument of theirs."""
    return f"{{}}{text}" if text.lstrip().startswith(("[", "*")) else text


def _character(cluster: str) -> str:
    if cluster in MATHS:
        return f"${MATHS[cluster]}$"
    if cluster in TEXT:
        return TEXT[cluster]
    if cluster.isascii():
        return cluster
    base, *marks = list(unicodedata.normalize("NFD", cluster))
    if marks and base.isascii() and base.isalpha() and all(mark in ACCENTS for mark in marks):
        for mark in marks:
            base = rf"\{ACCENTS[mark]}{{{base}}}"
        return base
    kind, *codes = (unicodedata.decomposition(cluster) if len(cluster) == 1 else "").split() or [""]
    if kind.startswith("<"):  # the same as other characters, but for how it looks
        plain = escape("".join(chr(int(code, 16)) for code in codes))
        return {"<super>": rf"\textsuperscript{{{plain}}}", "<sub>": rf"\textsubscript{{{plain}}}"}.get(kind, plain)
    return cluster
