r"""Conversion between Unicode and LaTeX that cannot execute anything.

Titles and abstracts of arXiv are LaTeX as their authors typed it, with accents (`\'e`), escapes
(`\%`), formulas (`$k$`), and sometimes a command defined only in their paper. Text written for
compilation must not execute anything: a formula is kept if all its commands are known to print, and
everything else becomes escaped plain text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from etude.papers.latex_symbols import (
    ACCENT_LETTERS,
    ACCENT_SIGNS,
    ACCENTS,
    ACCENTS_BY_MARK,
    CHARACTERS,
    LETTERS,
    LETTERS_BY_CHARACTER,
)
from etude.papers.words import shown

_WRITTEN = (
    *("textbackslash", "textbraceleft", "textbraceright", "textasciitilde", "textasciicircum"),
    *("textless", "textgreater", "textbar", "ldots", "textdegree", "copyright", "textregistered"),
    *("texttrademark", "S", "P", "pounds", "texteuro", "textperiodcentered", "textbullet"),
    *("textexclamdown", "textquestiondown"),
)
"""Commands for a character that the writer uses."""
_ESCAPED = {
    **{CHARACTERS[command]: f"\\{command}{{}}" for command in _WRITTEN},
    **{letter: f"{{\\{command}}}" for letter, command in LETTERS_BY_CHARACTER.items()},
    **{sign: f"\\{sign}" for sign in "$&%#_"},
    **{"–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", '"': '{"}', "\u00a0": "~"},
}
_SPECIAL = re.compile(r"[\\{}$&%#_~^<>|\"]|[^\x00-\x7f]")
_STYLES = {
    *("emph", "textit", "textbf", "texttt", "textsc", "textsf", "textrm", "textup", "textmd"),
    *("text", "mbox", "underline", "uline", "textnormal"),
}
_SWITCHES = {"em", "it", "bf", "tt", "sc", "sf", "rm", "protect", "noopsort", "small", "relax"}
# Commands that print and do nothing else, as titles and abstracts of arXiv use them.
_MATH = frozenset(
    re.findall(
        r"\w+",
        """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu
    xi
    pi varpi rho varrho sigma varsigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda
    Xi Pi Sigma Upsilon Phi Psi Omega ell hbar imath jmath Re Im aleph wp partial nabla infty
    emptyset varnothing forall exists nexists neg top bot angle triangle prime square Box star ast
    circ bullet cdot cdots ldots dots dotsc vdots ddots times div pm mp cap cup uplus sqcap sqcup
    vee wedge land lor setminus wr oplus ominus otimes oslash odot dagger ddagger amalg sum prod
    coprod int iint oint bigcap bigcup bigvee bigwedge bigoplus bigotimes leq le geq ge leqslant
    geqslant ll gg neq ne equiv sim simeq approx cong propto prec succ preceq succeq subset supset
    subseteq supseteq subsetneq sqsubseteq in ni notin mid nmid parallel perp vdash dashv models
    vDash asymp doteq lesssim gtrsim to gets leftarrow rightarrow leftrightarrow Leftarrow
    Rightarrow Leftrightarrow longrightarrow longleftarrow Longrightarrow mapsto longmapsto uparrow
    downarrow updownarrow nearrow searrow hookrightarrow rightharpoonup rightleftharpoons implies
    iff nrightarrow leadsto not lfloor rfloor lceil rceil langle rangle vert Vert lvert rvert lVert
    rVert backslash left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr quad qquad space
    mathbb mathcal mathbf mathrm mathit mathsf mathtt mathscr mathfrak boldsymbol bm text textbf
    textit textrm texttt textsc textsf mbox emph operatorname underline overline hat widehat tilde
    widetilde bar vec dot ddot acute grave breve check overbrace underbrace stackrel overset
    underset frac tfrac dfrac binom sqrt pmod bmod mod log ln lg exp sin cos tan tanh sinh cosh
    arcsin arccos arctan min max sup inf lim limsup liminf arg argmax argmin det dim ker deg gcd Pr
    natural sharp flat checkmark textsuperscript textsubscript rm bf it tt cal sf displaystyle
    limits nolimits colon""",
    )
)
_MATH_SIGNS = set("\\!,;:{}|%$&#_ ")
_FORMULA = re.compile(
    r"(?<!\\)\$(?!\$)((?:\\.|[^$\\]){1,400})(?<!\\)\$|\\\(((?:(?!\\[()]).){1,400})\\\)", re.DOTALL
)
_TOKEN = re.compile(
    rf"\\(?P<accent>[{re.escape(ACCENT_SIGNS)}]|[{ACCENT_LETTERS}](?![a-zA-Z]))\s*"
    r"(?:\{\s*(?P<braced>\\?[^\W\d_]?)\s*\}|(?P<bare>\\[ij](?![a-zA-Z])\s?|[^\W\d_]))"
    r"|\\href\{(?P<address>[^{}]*)\}\{(?P<shown>[^{}]*)\}"
    r"|\\(?:cite[a-z]*|ref|label|textcolor|color)\{[^{}]*\}(?P<nothing>)"
    r"|\\(?P<word>[a-zA-Z]+)\*?(?P<after>\{\}|\s*)"
    r"|\\(?P<sign>[^a-zA-Z])"
    r"|(?P<brace>[{}])"
    r"|(?P<dashes>---?|``|'')"
    r"|(?<=[\w.,)}])(?P<tie>~)(?=[\w\\({$])",
    re.DOTALL,
)
_DASHES = {"--": "–", "---": "—", "``": "“", "''": "”"}


def plain(text: str) -> str:
    r"""Return LaTeX as Unicode on one line: accents, escapes and styles resolved, formulas kept.

    An unknown command is kept, since the text would be missing a word.
    """
    pieces = (piece if formula else _unfolded(piece) for formula, piece in _pieces(text))
    return shown(unicodedata.normalize("NFC", "".join(pieces)))


def compilable(text: str) -> str:
    """Return safe LaTeX that prints the untrusted LaTeX `text`, with balanced braces."""
    kept: list[str] = []
    for formula, piece in _pieces(shown(text)):
        inside = piece.removeprefix("\\(").removesuffix("\\)").strip("$")
        if formula and _harmless(inside):
            kept.append(f"${inside}$")
        else:
            kept.append(escaped(_unfolded(piece)))
    return "".join(kept)


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the pieces of `text` in order: whether it is a formula, and the text."""
    place = 0
    for match in _FORMULA.finditer(text):
        yield False, text[place : match.start()]
        yield True, match[0]
        place = match.end()
    yield False, text[place:]


def _unfolded(text: str) -> str:
    return _TOKEN.sub(_decoded, text)


def _decoded(match: re.Match[str]) -> str:
    if match["accent"]:
        letter = (match["braced"] or match["bare"] or "").strip().removeprefix("\\")
        return unicodedata.normalize("NFC", letter + ACCENTS[match["accent"]]) if letter else ""
    if match["shown"] is not None:
        return match["shown"]
    if match["nothing"] is not None:
        return ""
    if match["word"]:
        word = match["word"]
        if word in _STYLES or word in _SWITCHES:
            return ""
        # The space after a command made of letters ends the command and prints nothing.
        return LETTERS.get(word) or CHARACTERS.get(word) or match[0].removesuffix("{}")
    if match["sign"]:
        sign = match["sign"]
        # A forced line end or a space of any width is a space; a hint for hyphens is removed.
        return "" if sign in "-/!" else " " if sign in "\\,; \n\t" else sign
    if match["dashes"]:
        return _DASHES[match["dashes"]]
    return " " if match["tie"] else ""


def escaped(text: str) -> str:
    """Return plain Unicode as LaTeX, with special characters and accents as commands.

    Characters without a command (Greek, Chinese, signs) are kept, for engines that read UTF-8.
    """
    return _SPECIAL.sub(lambda match: _encoded(match[0]), unicodedata.normalize("NFC", text))


def _encoded(letter: str) -> str:
    if letter in _ESCAPED:
        return _ESCAPED[letter]
    if letter.isascii():
        return letter
    split = unicodedata.normalize("NFD", letter)
    if len(split) == 2 and split[0].isascii() and split[1] in ACCENTS_BY_MARK:
        command, base = ACCENTS_BY_MARK[split[1]], split[0]
        if base in "ij" and command not in "cdbk":
            base = f"\\{base}"
        return f"{{\\{command}{{{base}}}}}" if command.isalpha() else f"{{\\{command}{base}}}"
    return letter


def _harmless(formula: str) -> bool:
    """Return whether a formula only prints, with braces balanced as BibTeX counts."""
    if "^^" in formula:
        return False
    depth = counted = 0
    for match in re.finditer(r"\\([a-zA-Z]+)|\\(.)|([{}%#&$])", formula, re.DOTALL):
        word, sign, special = match.groups()
        if (word and word not in _MATH) or (sign and sign not in _MATH_SIGNS):
            return False
        if special and special in "%#&$":
            return False
        # BibTeX counts `\{` as a brace as well.
        step = {"{": 1, "}": -1}.get(special or sign or "", 0)
        counted += step
        depth += step if special else 0
        if depth < 0 or counted < 0:
            return False
    pairs = [len(re.findall(rf"\\{side}(?![a-zA-Z])", formula)) for side in ("left", "right")]
    return depth == 0 and counted == 0 and pairs[0] == pairs[1]
