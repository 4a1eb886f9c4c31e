"""Formulas in Markdown: LaTeX between dollar signs becomes MathML.

`$…$` is a formula in a line, `$$…$$` one of its own. A dollar sign before a space or after one is
money, as in Pandoc. The converter's output is not trusted, as the text may be a stranger's: of its
elements and attributes only those of `_KNOWN` are kept, and a formula that cannot be converted is
shown as it was written.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, ParseError, fromstring

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline

LONGEST = 4000
_NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"
_KNOWN = frozenset(
    {
        "math", "mrow", "mi", "mn", "mo", "ms", "mtext", "mspace", "mfrac", "msqrt", "mroot",
        "msub", "msup", "msubsup", "munder", "mover", "munderover", "mmultiscripts", "mprescripts",
        "none", "mtable", "mtr", "mtd", "mstyle", "mpadded", "mphantom", "menclose", "mfenced",
    }
)  # fmt: skip
_ATTRIBUTES = frozenset(
    {
        "display", "displaystyle", "scriptlevel", "mathvariant", "stretchy", "fence", "separator",
        "form", "lspace", "rspace", "minsize", "maxsize", "symmetric", "largeop", "movablelimits",
        "accent", "accentunder", "linethickness", "width", "height", "depth", "columnalign",
        "rowspacing", "columnspacing", "columnlines", "rowlines", "notation",
    }
)  # fmt: skip
_LIMITS = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
_LARGE = frozenset("∑∏⋃⋂⨁")
"""Operators that have their limits below and above where a formula has a line of its own."""
_FUNCTIONS = frozenset({"cos", "sin", "tan", "exp", "log", "ln", "det", "tanh", "sinh", "cosh"})
_INLINE = re.compile(r"\$(?=[^\s$])((?:[^$\\]|\\.)*?)(?<!\s)\$(?!\d)", flags=re.DOTALL)
_DISPLAY = re.compile(r"\$\$((?:[^$\\]|\\.)+?)\$\$", flags=re.DOTALL)

_ALIGNED = re.compile(r"\\(begin|end)\{(?:aligned|split|gathered)\}")


def add_formulas(parser: MarkdownIt) -> MarkdownIt:
    """Let a parser read formulas, and its renderer write them as MathML."""
    parser.inline.ruler.before("escape", "formula", _inline)
    fence: Any = parser.block.ruler
    fence.before("fence", "formula", _block, {"alt": ["paragraph", "list", "blockquote"]})
    parser.add_render_rule("formula", _render)
    return parser


@lru_cache(4096)
def to_mathml(latex: str, display: bool = False) -> Markup:
    """Return a formula as MathML, or as it was written where it cannot be converted.

    Args:
        latex: the formula, without dollar signs.
        display: whether it has a line of its own.
    """
    written = Markup('<code class="formula">{}</code>').format(latex)
    if len(latex) > LONGEST:
        return written
    from latex2mathml.converter import convert

    # The converter knows these environments by their older name alone.
    latex = _ALIGNED.sub(r"\\\1{align*}", latex)
    try:
        root = fromstring(convert(latex, display="block" if display else "inline"))
        return _written(root, display)
    except (ParseError, RecursionError, _UnknownError):
        return written
    except Exception:  # the converter's own errors have no common class
        return written


class _UnknownError(Exception):
    """An element that is not shown."""


def _written(element: Element, display: bool) -> Markup:
    name = element.tag.removeprefix(_NAMESPACE)
    base = element[0] if len(element) else None
    if display and name in _LIMITS and base is not None and (base.text or "") in _LARGE:
        name = _LIMITS[name]
    if name == "mi" and (element.text or "") in _FUNCTIONS:
        # As an operator, a function's name keeps its distance from what it is applied to.
        return Markup('<mo lspace="0.167em" rspace="0.167em">{}</mo>').format(element.text)
    if name not in _KNOWN:
        raise _UnknownError(name)
    attributes = Markup().join(
        Markup(' {}="{}"').format(key, value)
        for key, value in element.attrib.items()
        if key in _ATTRIBUTES
    )
    inside = Markup().join(
        [escape(element.text or ""), *(_written(one, display) for one in element)]
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), attributes, inside)


def _inline(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] != "$":
        return False
    match = _DISPLAY.match(state.src, state.pos) or _INLINE.match(state.src, state.pos)
    if match is None or match.end() > state.posMax:
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.content, token.markup = match[1].strip(), match[0][:2] if match[0][1] == "$" else "$"
    state.pos = match.end()
    return True


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    begin = state.bMarks[start] + state.tShift[start]
    if not state.src.startswith("$$", begin):
        return False
    line = start
    text = state.src[begin + 2 : state.eMarks[start]]
    while not text.rstrip().endswith("$$"):
        line += 1
        if line >= end:
            return False
        text += "\n" + state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]
    if silent:
        return True
    state.line = line + 1
    token = state.push("formula", "math", 0)
    token.block, token.map = True, [start, state.line]
    token.content = text.rstrip()[:-2].strip()
    return True


def _render(
    _self: Any, tokens: Any, index: int, _options: Any, _env: Any, *_: Callable[..., Any]
) -> str:
    token = tokens[index]
    formula = to_mathml(token.content, token.block or token.markup == "$$")
    return f'<p class="formula">{formula}</p>\n' if token.block else str(formula)
