"""Text as LaTeX: every letter is kept, and nothing of a title is taken for a command."""

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.report.cells import Cell
from harness.report.latex import escape, label, needs
from harness.report.markup import TextTable, floating, latex

COMMAND = re.compile(
    r"\\(?:textbackslash|textasciicircum|textasciitilde|ldots|S|P|dag|ddag|copyright|pounds|ss|ae|AE|oe|OE|o|O|l|L|i)\{\}|\\[{}$#%&_]|\{\}"
    r"|\$\^?\\?(?:mathrm\{[A-Z]\}|mathbf\{R\}|[a-zA-Z]+|[-<>|])\$|\\(?:textsuperscript|textsubscript)(?=\{)|\\[`'^~=u.\"rHvdckb](?=\{)"
)


@given(st.text(max_size=30))
@example("İ ǖ 𝔘 \ud800 \x00 ﷺ")
def test_escaped_text_has_no_bare_special_character(text):
    escaped = escape(text)
    escaped.encode()
    assert not re.search(r"[\x00-\x1f\x7f]", escaped)
    rest = COMMAND.sub("", escaped.replace("~", "" if "\u00a0" in unicodedata.normalize("NFKC", text) else "~"))
    rest = re.sub(r"\{([^{}]*)\}", r"\1", re.sub(r"\{([^{}]*)\}", r"\1", re.sub(r"\{([^{}]*)\}", r"\1", rest)))
    assert not set(rest) & set("{}#%&_^$\\"), rest


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Fréchet’s Δ² ≤ 5 % ＃1", r"Fr\'{e}chet's $\Delta$\textsuperscript{2} $\leq$ 5 \% \#1"),
        ("σ = ½, λ→∞, 3 µm", r"$\sigma$ = 1/2, $\lambda$$\rightarrow$$\infty$, 3 $\mu$m"),
        ("ε ϵ φ ϕ ς Σ Α Ω ο", r"$\varepsilon$ $\epsilon$ $\varphi$ $\phi$ $\varsigma$ $\Sigma$ $\mathrm{A}$ $\Omega$ $o$"),
        ("Erdős, Jürgen, Åse, naïve, Łukasz, Ørsted, weiß", r"Erd\H{o}s, J\"{u}rgen, \r{A}se, na\"{i}ve, \L{}ukasz, \O{}rsted, wei\ss{}"),
        ("Jürgen", r"J\"{u}rgen"),  # decomposed, as macOS writes names
        ("DiT^DH, DiTᴰᴴ, H₂O, 10⁻³", r"DiT\textsuperscript{DH}, DiT\textsuperscript{D}\textsuperscript{H}, H\textsubscript{2}O, "
         r"10\textsuperscript{$-$}\textsuperscript{3}"),
        ("“a–b” — --c… 5\u00a0%", r"``a--b'' --- -{}-c\ldots{} 5~\%"),
        ("a\tb\nc", "a b c"),
        ("寄存器 регистры ά", "寄存器 регистры ά"),
        ("?", "?"),
    ],
)  # fmt: skip
def test_letters_are_kept_as_latex_or_as_they_are(text, written):
    assert escape(text) == written


def test_letters_that_pdflatex_does_not_know_are_named():
    assert needs(escape("Fréchet’s λ"), "plain") == []
    assert needs(escape("寄存器 é"), escape("ж")) == ["% Needs LuaLaTeX or XeLaTeX, and a font that has: ж 器 存 寄"]


@pytest.mark.parametrize("title", ["[16] registers", "* starred", " [x]", "*"])
def test_a_row_or_a_heading_that_begins_with_a_bracket_or_a_star_is_no_argument_of_the_line_before(title):
    table = TextTable("t", [title, "FID"], [([title], [Cell("1.0")]), (["plain"], [Cell("2.0")])])
    lines = latex(table, {}).splitlines()
    assert not any(re.match(r"\s*[\[*]", line) for line in lines)
    assert f"{{}}{title} & $1.0$ \\\\" in lines
    assert r"plain & $2.0$ \\" in lines


def test_a_label_is_plain_and_of_its_title_alone():
    assert label("FID and the EMA decay") == "fid-and-the-ema-decay"
    labels = [label(title) for title in ("50 % of it", "50 # of it", "50  of it", "{50} of it", "größe", "grüße")]
    assert all(re.fullmatch("[a-z0-9-]+", one) for one in labels)
    assert len(set(labels)) == len(labels)


def test_a_caption_with_quotes_and_brackets_is_printed_as_it_is():
    table = TextTable("t", ["Method", "FID"], [(["m"], [Cell("1.0")])])
    text = floating([table], {}, caption=['Ann\'s "own" [16] {x} $HOME `y` 100 %'], notes=[], label="tab:x")
    assert '\\caption{Ann\'s "own" [16] \\{x\\} \\$HOME `y` 100 \\%}\n' in text
