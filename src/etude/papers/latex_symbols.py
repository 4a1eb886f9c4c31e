"""LaTeX commands and their Unicode equivalents: the only such table.

Accents, letters and characters are used in both directions (names and titles of arXiv, BibTeX,
search); the later tables serve `etude.papers.latex_text`. Letters of ornamental alphabets are left
plain, since common fonts may lack them.
"""

from __future__ import annotations

from typing import Final

from etude.core.words import word_set


def words(text: str) -> list[str]:
    """Return the words of a table written as text."""
    return text.split()


ACCENTS: Final = {
    "'": "\u0301",
    "`": "\u0300",
    "^": "\u0302",
    '"': "\u0308",
    "~": "\u0303",
    "=": "\u0304",
    ".": "\u0307",
    "u": "\u0306",
    "v": "\u030c",
    "H": "\u030b",
    "r": "\u030a",
    "c": "\u0327",
    "k": "\u0328",
    "d": "\u0323",
    "b": "\u0331",
}
"""Accent commands of text mode, and their combining marks."""

ACCENT_SIGNS: Final = "".join(command for command in ACCENTS if not command.isalpha())
ACCENT_LETTERS: Final = "".join(command for command in ACCENTS if command.isalpha())
ACCENTS_BY_MARK: Final = {mark: command for command, mark in ACCENTS.items()}

MARKS: Final = {
    "hat": "\u0302",
    "widehat": "\u0302",
    "tilde": "\u0303",
    "widetilde": "\u0303",
    "bar": "\u0304",
    "overline": "\u0304",
    "dot": "\u0307",
    "ddot": "\u0308",
    "vec": "\u20d7",
    "check": "\u030c",
    "breve": "\u0306",
    "acute": "\u0301",
    "grave": "\u0300",
    "mathring": "\u030a",
}
"""Accent commands of maths mode, and their combining marks."""

LETTERS: Final = {
    "ss": "ß",
    "o": "ø",
    "O": "Ø",
    "l": "ł",
    "L": "Ł",
    "ae": "æ",
    "AE": "Æ",
    "oe": "œ",
    "OE": "Œ",
    "aa": "å",
    "AA": "Å",
    "i": "ı",
    "j": "ȷ",
    "dh": "ð",
    "DH": "Ð",
    "th": "þ",
    "TH": "Þ",
    "dj": "đ",
    "DJ": "Đ",
    "ng": "ŋ",
    "NG": "Ŋ",
}
"""Commands for letters."""

LETTERS_BY_CHARACTER: Final = {letter: command for command, letter in LETTERS.items()}

_CHARACTERS = (
    "textbackslash \\ textbraceleft { textbraceright } textasciitilde ~ textasciicircum ^ "
    'textless < textgreater > textbar | textquotedbl " textasciigrave ` textunderscore _ '
    "textdollar $ textpercent % textendash – textemdash — textquoteleft ‘ textquoteright ’ "
    "textquotedblleft “ textquotedblright ” textquotesingle ' guillemotleft « guillemotright » "
    "textexclamdown ¡ textquestiondown ¿ ldots … dots … textellipsis … S § textsection § P ¶ "
    "copyright © textcopyright © textregistered ® texttrademark ™ pounds £ textsterling £ euro € "
    "texteuro € textyen ¥ textdegree ° textperiodcentered · textbullet • textmu µ textonehalf ½ "
    "texttimes × textpm ±"
)

_GREEK = (
    "alpha α beta β gamma γ delta δ epsilon ε varepsilon ε zeta ζ eta η theta θ vartheta θ iota ι "
    "kappa κ varkappa κ lambda λ mu μ nu ν xi ξ omicron ο pi π varpi π rho ρ varrho ρ sigma σ "
    "varsigma ς tau τ upsilon υ phi φ varphi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ "
    "Lambda Λ Xi Ξ Pi Π Sigma Σ Upsilon Υ Phi Φ Psi Ψ Omega Ω"
)
_SIGNS = (
    "infty ∞ partial ∂ nabla ∇ ell ℓ hbar ℏ Re ℜ Im ℑ aleph ℵ emptyset ∅ varnothing ∅ forall ∀ "
    "exists ∃ nexists ∄ neg ¬ lnot ¬ top ⊤ bot ⊥ angle ∠ triangle △ square □ Box □ Diamond ◇ "
    "diamond ⋄ star ⋆ bigstar ★ ast * dagger † ddagger ‡ degree ° circ ∘ bullet • cdot · sum ∑ "
    "prod ∏ int ∫ iint ∬ oint ∮ bigcup ⋃ bigcap ⋂ bigoplus ⨁ bigotimes ⨂ surd √ prime ′ "
    "cdots … dotsc … dotsb … vdots ⋮ ddots ⋱ langle ⟨ rangle ⟩ "
    "lceil ⌈ rceil ⌉ lfloor ⌊ rfloor ⌋ lvert | rvert | lVert ‖ rVert ‖ vert | Vert ‖ lbrace { "
    "rbrace } lbrack [ rbrack ] checkmark ✓ cmark ✓ xmark ✗ slash / colon : clubsuit ♣ "
    "heartsuit ♥ spadesuit ♠ diamondsuit ♦ flat ♭ natural ♮ sharp ♯ lq ‘ rq ’ wp ℘ complement ∁ "
    "blacksquare ■ blacktriangle ▲ dag † ddag ‡ lbrackdbl ⟦ mho ℧ textalpha α textbeta β "
    "textgamma γ"
)
_RELATIONS = (
    "in ∈ notin ∉ ni ∋ le ≤ leq ≤ leqslant ≤ ge ≥ geq ≥ geqslant ≥ lt < gt > ll ≪ gg ≫ "
    "ne ≠ neq ≠ equiv ≡ approx ≈ approxeq ≊ simeq ≃ cong ≅ sim ~ thicksim ~ propto ∝ to → gets ← "
    "rightarrow → leftarrow ← leftrightarrow ↔ Rightarrow ⇒ Leftarrow ⇐ Leftrightarrow ⇔ implies ⇒ "
    "iff ⇔ mapsto ↦ longmapsto ↦ longrightarrow → longleftarrow ← Longrightarrow ⇒ "
    "hookrightarrow ↪ "
    "leadsto ⇝ rightsquigarrow ⇝ uparrow ↑ downarrow ↓ updownarrow ↕ Uparrow ⇑ Downarrow ⇓ "
    "nearrow ↗ "
    "searrow ↘ swarrow ↙ nwarrow ↖ rightleftharpoons ⇌ subset ⊂ subseteq ⊆ subsetneq ⊊ supset ⊃ "
    "supseteq ⊇ sqsubseteq ⊑ prec ≺ preceq ⪯ succ ≻ succeq ⪰ perp ⊥ parallel ∥ mid | models ⊨ "
    "vdash ⊢ vDash ⊨ doteq ≐ triangleq ≜ coloneqq ≔ asymp ≍ lesssim ≲ gtrsim ≳ lessapprox ⪅ "
    "gtrapprox ⪆ therefore ∴ because ∵ xrightarrow → trianglelefteq ⊴ textrightarrow → "
    "textleftarrow ← nleq ≰ ngeq ≱ rightharpoonup ⇀ twoheadrightarrow ↠ bowtie ⋈"
)
_OPERATIONS = (
    "times × div ÷ pm ± mp ∓ cup ∪ cap ∩ setminus ∖ backslash ∖ oplus ⊕ ominus ⊖ otimes ⊗ odot ⊙ "
    "oslash ⊘ wedge ∧ land ∧ vee ∨ lor ∨ sqcup ⊔ sqcap ⊓ uplus ⊎ rtimes ⋊ ltimes ⋉ amalg ⨿ "
    "boxplus ⊞ boxtimes ⊠"
)


def _table(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


ABBREVIATIONS_BY_NAME: Final = {"eg": "e.g.", "ie": "i.e.", "etal": "et al."}
ABBREVIATIONS: Final = frozenset(ABBREVIATIONS_BY_NAME.values())

CHARACTERS: Final = _table(_CHARACTERS)
"""Text commands for characters; `etude.papers.exchange` writes some of them."""

SIGNS: Final = (
    CHARACTERS
    | _table(_GREEK)
    | _table(_SIGNS)
    | ABBREVIATIONS_BY_NAME
    | {"textbackslash": "\u2216", "deg": "°"}
)
"""Commands for characters. A backslash becomes ∖, which cannot be taken for a command."""

RELATIONS: Final = _table(_RELATIONS)
"""Surrounded by spaces after another operand."""

OPERATIONS: Final = _table(_OPERATIONS)
"""Surrounded by spaces only where the source is."""

FUNCTIONS: Final = word_set(
    "arccos arcsin arctan arg argmax argmin cos cosh cot coth csc det dim exp gcd hom "
    "inf ker lg lim liminf limsup ln log max min mod Pr sec sin sinh sup tan tanh poly "
    "polylog Var Cov softmax sign sgn rank tr diag supp"
)
"""Operator names: each command prints its own name as a word."""

SPACES: Final = word_set(
    "quad qquad space enspace thinspace medspace thickspace newline par linebreak hfill "
    "hfil vfill smallskip medskip bigskip break newpage pagebreak and nobreakspace "
    "tabularnewline indent hskip vskip"
)

NOTHING: Final = word_set(
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr "
    "displaystyle textstyle scriptstyle limits nolimits bf it em tt sc rm sf sl cal "
    "bfseries itshape ttfamily scshape rmfamily sffamily upshape mdseries slshape "
    "normalfont tiny scriptsize footnotesize small normalsize large Large LARGE huge Huge "
    "xspace ignorespaces unskip relax protect noindent centering raggedright boldmath "
    "unboldmath mathstrut strut null maketitle hline toprule midrule bottomrule "
    "allowbreak nolinebreak nopagebreak smash selectfont sloppy negthinspace nobreak "
    "leavevmode nonumber notag frenchspacing mathsurround expandafter noexpand csname "
    "endcsname begingroup endgroup bgroup egroup doublespacing"
)
"""Commands of font, size and layout."""

DROPPED: Final = {
    **dict.fromkeys(
        words(
            "label vspace hspace phantom hphantom vphantom begin end bibliography "
            "bibliographystyle input include usepackage documentclass pagestyle thispagestyle "
            "setcounter color includegraphics index nocite thanks vskip hypersetup fontfamily "
            "fontseries fontshape pdfoutput tag rule"
        ),
        1,
    ),
    **dict.fromkeys(words("newcommand renewcommand providecommand setlength addtocounter"), 2),
}
"""Commands that are dropped, with their number of arguments."""

FIRST_DROPPED: Final = word_set(
    "textcolor colorbox mathcolor raisebox resizebox scalebox parbox foreignlanguage "
    "hyperref hyperlink texorpdfstring stackrel overset underset fontsize selectlanguage"
)
"""Commands with two arguments, of which the second is kept."""

NEGATED: Final = {
    "=": "≠",
    "∈": "∉",
    "<": "≮",
    ">": "≯",
    "≤": "≰",
    "≥": "≱",
    "≡": "≢",
    "∼": "≁",
    "~": "≁",
    "⊂": "⊄",
    "⊆": "⊈",
    "∃": "∄",
    "|": "∤",
    "∥": "∦",
}

DOUBLE_STRUCK: Final = dict(zip("RCNZQPH", "ℝℂℕℤℚℙℍ", strict=True))

_RAISED = "0⁰1¹2²3³4⁴5⁵6⁶7⁷8⁸9⁹+⁺-⁻−⁻=⁼(⁽)⁾nⁿiⁱTᵀ"
_LOWERED = "0₀1₁2₂3₃4₄5₅6₆7₇8₈9₉+₊-₋−₋=₌(₍)₎aₐeₑoₒxₓiᵢjⱼkₖlₗmₘnₙpₚrᵣsₛtₜuᵤvᵥ"
RAISED: Final = dict(zip(_RAISED[::2], _RAISED[1::2], strict=True))
LOWERED: Final = dict(zip(_LOWERED[::2], _LOWERED[1::2], strict=True))
UPRIGHT: Final = frozenset("°*†‡′⊤⊥+")
"""Superscripts that are written without `^`."""
ORDINALS: Final = word_set("th st nd rd")
