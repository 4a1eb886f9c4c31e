"""LaTeX read by people: what it becomes, and what hostile text cannot do."""

from __future__ import annotations

import json
import lzma
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.papers.latex_text import LONGEST, latex_to_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"Schr\"odinger, Erd\H{o}s, Fran\c{c}ois, \v{S}koda, Na{\"\i}ve, \O{}rsted, Stra\ss{}e",
         "Schrödinger, Erdős, François, Škoda, Naïve, Ørsted, Straße"),
        (r"\emph{Fast} and \textbf{\textit{small}} {\em models}", "Fast and small models"),
        (r"$k$-NN in $O(n\log n)$", "k-NN in O(n log n)"),
        (r"$\alpha=0.5$ and $\beta \in \mathbb{R}^{n\times d}$", "α=0.5 and β ∈ ℝ^(n×d)"),
        (r"$x_i^2$, $10^{-3}$, $L_{max}$, CO$_2$", "xᵢ², 10⁻³, L_max, CO₂"),
        (r"$\sim$10, $\leq 5$, $x\leq y$, 2$\times$ faster", "~10, ≤5, x ≤ y, 2× faster"),
        (r"as shown~\cite{a,b}. See \citep[p.~3]{c}, too", "as shown. See, too"),
        (r"(e.g., BERT) (\cite{x}; \cite{y}) works", "(e.g., BERT) works"),
        (r"at \url{https://github.com/a_b/c~d--e}.", "at https://github.com/a_b/c~d--e."),
        (r"\href{https://a.org/x\_y}{our page}", "our page (https://a.org/x_y)"),
        (r"95\% of R\&D, \#1, a\_b, \$5", "95% of R&D, #1, a_b, $5"),
        ("from $5 million to $10 million", "from $5 million to $10 million"),
        ("costs $1 or $2, and $x$ is free", "costs $1 or $2, and x is free"),
        ("``quoted'' and `single' -- dashed --- long", "“quoted” and ‘single’ – dashed — long"),
        ("Fig.~3, ~20 images, (~5%)", "Fig. 3, ~20 images, (~5%)"),
        (r"\textsc{Ours} beats \ourmodel{} and \method", "Ours beats ourmodel and method"),
        (r"$\frac{1}{n+1}$, $\sqrt{n}$, $\hat{y}$", "1/(n+1), √n, ŷ"),
        (r"$5^{\circ}$, $4^{th}$, $A^*$, $\mathcal{O}(\epsilon^{-2})$", "5°, 4th, A*, O(ε⁻²)"),
        (r"{BERT}: {Pre-training}", "BERT: Pre-training"),
        ("a &lt; b &amp; c", "a < b & c"),
        ("two\nlines\twith   spaces ", "two lines with spaces"),
        ("R^2 and file_name stay", "R^2 and file_name stay"),
        ("0", "0"),
        ("", ""),
    ],
)  # fmt: skip
def test_what_latex_becomes(text, expected):
    assert latex_to_text(text) == expected


@pytest.mark.parametrize(
    "bomb",
    [
        "{" * 200_000,
        "{" * 30_000 + "x" + "}" * 30_000,
        "$" * 1_000_000,
        "$x" * 500_000,
        r"\frac" * 200_000,
        r"\frac{" * 100_000,
        "^" * 100_000 + "{" * 100_000,
        "$" + "^_" * 100_000 + "$",
        r"\href{" * 100_000,
        r"\cite[" * 100_000,
        r"\'" * 100_000,
        "\\" * 100_001,
        r"\hat{" * 50_000,
        "`" * 100_000,
        "-" * 100_000,
        "&#1" * 100_000,
        "http://" * 100_000,
        "x \\\\ " * 50_000,
        "e" + "\u0301" * 100_000,
        r"\sqrt[" + "[" * 100_000,
        ", ".join(f'A. M\\"uller{n}' for n in range(3303)),
    ],
    ids=range(21),
)
def test_bombs_are_bounded_in_output_and_steps(bomb):
    start = time.process_time()
    out = latex_to_text(bomb)
    assert len(out) <= 2 * LONGEST
    # No promise of speed: a quadratic reader would need minutes for these.
    assert time.process_time() - start < 30


def clean(text: str) -> bool:
    return all(unicodedata.category(letter) not in {"Cc", "Cf", "Cs", "Co"} for letter in text)


LATEX = st.lists(
    st.one_of(
        st.sampled_from([*"\\{}$^_~%&`'-[]() ", r"\frac", r"\cite", r"\"", r"\url", r"\begin"]),
        st.text(max_size=4),
    ),
    max_size=60,
).map("".join)


@given(LATEX)
def test_whatever_comes_is_one_clean_line(text):
    out = latex_to_text(text)
    assert clean(out)
    assert out == " ".join(out.split())


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_direction_marks_and_controls_never_stay(text):
    assert clean(latex_to_text("\u202e" + text + "\x1b[31m\u2066"))


def test_plain_text_is_left_alone():
    text = "We propose X (2.5x faster): it's 95% - simple; see https://x.org/~me_1?a=b&c=d."
    assert latex_to_text(text) == text


def test_no_command_is_left_in_real_titles_and_abstracts(shared_data):
    file = shared_data / "papers" / "corpus.jsonl.xz"
    if not file.is_file():
        pytest.skip(f"no papers at {file}")
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number == 1500:
                break
            row = json.loads(line)
            for text in (row["title"], row["abstract"]):
                out = latex_to_text(text)
                assert "\\" not in out
                assert "\n" not in out
                assert len(out) >= 0.5 * len(text)
