r"""LaTeX to plain text: titles and abstracts as one line of Unicode.

Abstracts mix valid LaTeX, fragments, authors' own macros and prices in dollars. A tokenizer reads
them once from left to right and converts what it knows; of unknown commands it keeps the text. So
`\emph{fast} $k$-NN in $O(n\log n)$` becomes `fast k-NN in O(n log n)`, and `\ourmodel{}` becomes
`ourmodel`.

Each token is read once, groups deeper than `DEEPEST` are flattened, and input longer than `LONGEST`
is truncated, so time and output are bounded.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Final

from etude.papers import latex_symbols
from etude.papers.words import shown

LONGEST: Final = 50_000
"""Maximum characters of input; arXiv limits abstracts to 1,920."""
DEEPEST: Final = 40
"""Maximum nesting of groups; deeper ones are reduced to their text."""
MATHS: Final = 1_000
"""Maximum characters between the dollar signs of a formula."""
_LONGEST_ARGUMENT: Final = 400
"""Maximum tokens of a URL or an optional argument."""

_PLAIN = re.compile(r"[^\\${}~^_`&\x00]*")
_TOKEN = re.compile(
    r"https?://[^\s{}\\$<>\"]+"
    r"|\\[A-Za-z]+\*?|\\[^A-Za-z]|\\"
    r"|\$\$?|[{}^_~\[\]]|\s+"
    r"|[^\\${}^_~\[\]\sh]+|h",
    re.DOTALL,
)
_FORMULA = re.compile(r"[\\^_=<>]")
_CITES = re.compile(
    r"[Cc]ite[a-z]*|(?:eq|page|auto|name|sub|sec|th|fig|tab|v|c|C)?ref|(?:paren|foot|auto|text)cite"
)
_CITED = re.compile(r"\s*[\(\[]\s*\x00(?:[\s;,~]*\x00)*\s*[\)\]]|\s*\x00")
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{1,7}|#x[0-9a-fA-F]{1,6});")
_QUOTED = re.compile(r"`([^`'\s][^`']{0,80})[`']")
_HEAPED = re.compile("([\u0300-\u036f\u20d0-\u20ff]{2})[\u0300-\u036f\u20d0-\u20ff]+")
_ACCENTS: Final = latex_symbols.ACCENTS | {"t": ""}
"""The tie over two letters is dropped, since fonts render it badly."""
_ADDRESS_ESCAPES = re.compile(r"\\([_%#&~{}$])")


def latex_to_text(text: str) -> str:
    """Return `text` as plain text on one line, without LaTeX, control and direction marks.

    Never raises. Text without LaTeX is unchanged, except for white space.
    """
    text = text[:LONGEST].replace("\x00", "")
    if _ENTITY.search(text):
        text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
    if _PLAIN.fullmatch(text) is None:
        text = _Reader(text).read()
        text = _CITED.sub("", " ".join(text.split()))
        text = text.replace("``", "“")
        text = _QUOTED.sub(r"‘\1’", text)
    text = _dashes(text.replace("''", "”"))
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    return shown(_HEAPED.sub(r"\1", unicodedata.normalize("NFC", text)))


def _dashes(text: str) -> str:
    if "--" not in text:
        return text
    return " ".join(
        word
        if "://" in word
        else re.sub(r"(?<!-)---?(?!-)", lambda found: "—" if len(found[0]) == 3 else "–", word)
        for word in text.split(" ")
    )


class _Reader:
    """Tokenizer state; `at` is the index of the next token."""

    def __init__(self, text: str) -> None:
        self.tokens = _TOKEN.findall(text)
        self.at = 0
        self.depth = 0
        self.closing = self._formulas()

    def _formulas(self) -> dict[int, int]:
        """Return which dollar signs open a formula, and which close it.

        Prices are distinguished from formulas as in Pandoc, by spaces inside and a digit after.
        """
        pairs: dict[int, int] = {}
        opened: int | None = None
        length = 0
        for place, token in enumerate(self.tokens):
            if opened is not None:
                length += len(token)
            if token not in ("$", "$$"):
                continue
            if opened is not None and token == self.tokens[opened] and length <= MATHS:
                inside = self.tokens[opened + 1 : place]
                if self._is_formula(inside, place, token):
                    pairs[opened] = place
                    opened = None
                    continue
            opened, length = place, 0
        return pairs

    def _is_formula(self, inside: list[str], place: int, token: str) -> bool:
        if token == "$$":
            return True
        if not inside:
            return False
        if _FORMULA.search("".join(inside)):
            return True
        after = self.tokens[place + 1][:1] if place + 1 < len(self.tokens) else ""
        tight = not inside[0].isspace() and not inside[-1].isspace() and not after.isdigit()
        return tight or len("".join(inside).split()) == 1

    def read(self) -> str:
        """Return the whole text; unmatched closing braces are dropped."""
        out: list[str] = []
        while self.at < len(self.tokens):
            self._until(len(self.tokens), out, maths=False)
            self.at += 1
        return "".join(out)

    def _until(self, end: int, out: list[str], *, maths: bool) -> None:
        """Read up to the token `end`, or to a brace that closes the group."""
        while self.at < end and self.tokens[self.at] != "}":
            self._one(out, maths=maths)

    def _one(self, out: list[str], *, maths: bool) -> None:
        """Read one token with its arguments."""
        token = self.tokens[self.at]
        place = self.at
        self.at += 1
        if token == "{":
            out.append(self._group(maths=maths))
        elif token in ("$", "$$"):
            if place in self.closing:
                inner: list[str] = []
                self._until_formula(self.closing[place], inner)
                out.append("".join(inner).strip())
            elif not maths:
                out.append(token)
        elif token.startswith("\\"):
            self._command(token[1:], out, maths=maths)
        elif token in "^_" and (maths or self._next() == "{"):
            self._script(token, out)
        elif token == "~":
            out.append(self._tie(out))
        elif maths and token == "-" and not out:
            out.append("-")
        elif maths:
            out.append(token.replace("'", "′"))
        else:
            out.append(token)

    def _until_formula(self, end: int, out: list[str]) -> None:
        while self.at < end:
            if self.tokens[self.at] == "}":
                self.at += 1
            else:
                self._one(out, maths=True)
        self.at = max(self.at, end + 1)

    def _next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _skip_space(self) -> None:
        while self._next().isspace():
            self.at += 1

    def _group(self, *, maths: bool) -> str:
        """Read a group whose opening brace has been read."""
        if self.depth >= DEEPEST:
            return ""
        self.depth += 1
        out: list[str] = []
        self._until(len(self.tokens), out, maths=maths)
        self.at += 1
        self.depth -= 1
        return "".join(out)

    def _argument(self, *, maths: bool) -> str:
        """Read the argument of a command: a group, or else one letter or command."""
        self._skip_space()
        token = self._next()
        if token in ("", "}", "$", "$$") or self.depth >= DEEPEST:
            return ""
        if token == "{":
            self.at += 1
            return self._group(maths=maths)
        if token.startswith("\\") or token in "^_~[]":
            self.depth += 1
            out: list[str] = []
            self._one(out, maths=maths)
            self.depth -= 1
            return "".join(out)
        # The argument is one letter; the rest of the token is read next.
        self.tokens[self.at] = token[1:]
        if not token[1:]:
            self.at += 1
        return token[0]

    def _raw(self) -> str:
        """Read an argument verbatim, for a URL."""
        self._skip_space()
        if self._next() != "{":
            return ""
        self.at += 1
        start = self.at
        level = 1
        while self.at < len(self.tokens) and self.at - start < _LONGEST_ARGUMENT:
            level += (self._next() == "{") - (self._next() == "}")
            self.at += 1
            if level == 0:
                break
        inside = self.tokens[start : self.at - 1 if level == 0 else self.at]
        return _ADDRESS_ESCAPES.sub(r"\1", "".join(inside)).replace("\\", "").strip()

    def _option(self) -> str:
        """Read an optional argument in brackets, if there is one."""
        if self._next() != "[":
            return ""
        end = min(len(self.tokens), self.at + _LONGEST_ARGUMENT)
        for place in range(self.at + 1, end):
            if self.tokens[place] == "]":
                inside = "".join(self.tokens[self.at + 1 : place])
                self.at = place + 1
                return inside
        return ""

    def _tie(self, out: list[str]) -> str:
        """Read a tilde: a space between words, or "about" before a number."""
        before = out[-1][-1:] if out and out[-1] else ""
        after = self._next()[:1]
        alone = not before or before.isspace() or before in "(["
        return "~" if alone and (after.isdigit() or after in ("$", "\\")) else " "

    def _script(self, kind: str, out: list[str]) -> None:
        # In maths two scripts in a row have a space between them only by accident.
        text = self._argument(maths=True).strip()
        if not text:
            return
        raised = kind == "^"
        if raised and text in ("∘", "o"):
            out.append("°")
            return
        if raised and (
            text in latex_symbols.ORDINALS or all(c in latex_symbols.UPRIGHT for c in text)
        ):
            out.append(text)
            return
        table = latex_symbols.RAISED if raised else latex_symbols.LOWERED
        # Three lower-case letters are a word, for which `_max` is easier to read.
        small = len(text) <= 2 or not any(letter.isalpha() for letter in text)
        if small and all(letter in table for letter in text):
            out.append("".join(table[letter] for letter in text))
        elif len(text) == 1 or (text.isalnum() and (not raised or text.isascii())):
            out.append(kind + text)
        else:
            out.append(f"{kind}({text})")

    def _command(self, name: str, out: list[str], *, maths: bool) -> None:
        if not name[:1].isalpha():
            self._symbol(name, out, maths=maths)
            return
        name = name.rstrip("*")
        plain = self._character(name, out, maths=maths)
        if plain is not None:
            # Authors write `\eg this` where the macro adds a space.
            spaced = plain in latex_symbols.ABBREVIATIONS and self._next().isspace()
            self._swallow()
            out.append(f"{plain} " if spaced else plain)
        elif name in latex_symbols.FUNCTIONS:
            before = out[-1][-1:] if out and out[-1] else ""
            out.append((" " if before.isalnum() or before in (")", "]") else "") + name)
            if self._next()[:1].isalnum():
                out.append(" ")
        elif name in latex_symbols.SPACES:
            out.append(" ")
        elif name in latex_symbols.NOTHING:
            self._swallow()
            if name in ("left", "right", "middle") and self._next().startswith("."):
                self.tokens[self.at] = self._next()[1:]
        elif name == "item":
            out.append(f" {self._option() or '•'} ")
        elif name in latex_symbols.DROPPED:
            self._dropped(latex_symbols.DROPPED[name])
        elif _CITES.fullmatch(name):
            while self._next() == "[":
                if not self._option():
                    break
            self._raw()
            out.append("\x00")
        else:
            self._with_arguments(name, out, maths=maths)

    def _character(self, name: str, out: list[str], *, maths: bool) -> str | None:
        """Return the character of a command, or None."""
        if name in latex_symbols.LETTERS and not (maths and name in ("i", "j", "o", "l", "L", "O")):
            return latex_symbols.LETTERS[name]
        if name in latex_symbols.SIGNS:
            return latex_symbols.SIGNS[name]
        written = "".join(out[-2:])
        if name in latex_symbols.RELATIONS:
            sign = latex_symbols.RELATIONS[name]
            if not maths or not written.strip():
                return sign + (" " if not maths and self._next().isspace() else "")
            return f"{'' if written[-1:].isspace() else ' '}{sign} "
        if name in latex_symbols.OPERATIONS:
            sign = latex_symbols.OPERATIONS[name]
            spaced = (written[-1:].isspace() and written.strip()) or not maths
            return f"{sign} " if spaced and self._next().isspace() else sign
        return None

    def _swallow(self) -> None:
        """Skip spaces and an empty group after a command's name."""
        self._skip_space()
        if self.tokens[self.at : self.at + 2] == ["{", "}"]:
            self.at += 2

    def _symbol(self, name: str, out: list[str], *, maths: bool) -> None:
        """Read a command of one non-letter character."""
        if name in _ACCENTS and not maths:
            self._accented(_ACCENTS[name], out)
        elif name == "|":
            out.append("‖")
        elif name in ("(", ")", "[", "]", "/", "-", "!", "@", "'", "`", "^", "."):
            pass
        elif name in ("", "\\", ",", ";", ":", ">", "=", "~", '"') or name.isspace():
            out.append(" ")
            if name == "\\":
                self._option()
        else:
            out.append(name)

    def _accented(self, mark: str, out: list[str]) -> None:
        letters = self._argument(maths=False)
        bare = {"ı": "i", "ȷ": "j"}.get(letters[:1], letters[:1])
        out.append(bare + (mark if bare.isalpha() else "") + letters[1:])

    def _dropped(self, arguments: int) -> None:
        self._option()
        for _ in range(arguments):
            self._skip_space()
            if self._next() == "{":
                self._raw()
            self._option()

    def _with_arguments(self, name: str, out: list[str], *, maths: bool) -> None:
        if name in _ACCENTS and not (maths and name in ("d", "b", "t", "c", "k", "r")):
            self._accented(_ACCENTS[name], out)
        elif name in latex_symbols.MARKS:
            letters = self._argument(maths=True)
            out.append(letters + (latex_symbols.MARKS[name] if len(letters) == 1 else ""))
        elif name in ("frac", "dfrac", "tfrac", "nicefrac", "sfrac"):
            above, below = self._argument(maths=True), self._argument(maths=True)
            out.append(f"{_bracketed(above)}/{_bracketed(below)}")
        elif name == "sqrt":
            self._option()
            out.append(f"√{_bracketed(self._argument(maths=True))}")
        elif name in ("binom", "tbinom", "dbinom"):
            out.append(f"C({self._argument(maths=True)}, {self._argument(maths=True)})")
        elif name == "not":
            sign = self._argument(maths=True).strip()
            out.append(f" {latex_symbols.NEGATED.get(sign, '¬' + sign)} ")
        elif name == "mathbb":
            letters = self._argument(maths=True)
            out.append(
                "".join(latex_symbols.DOUBLE_STRUCK.get(letter, letter) for letter in letters)
            )
        elif name in ("url", "path", "nolinkurl"):
            out.append(self._raw())
        elif name == "href":
            address, text = self._raw(), self._argument(maths=False).strip()
            same = not text or text.rstrip("/") in address
            out.append(address if same else f"{text} ({address})")
        elif name in ("footnote", "footnotetext"):
            self._option()
            out.append(f" ({self._argument(maths=False).strip()})")
        elif name == "verb":
            self._verbatim(out)
        elif name in latex_symbols.FIRST_DROPPED:
            self._option()
            self._argument(maths=maths)
            out.append(self._argument(maths=maths))
        else:
            self._unknown(name, out, maths=maths)

    def _verbatim(self, out: list[str]) -> None:
        token = self._next()
        mark = token[:1]
        end = token.find(mark, 1) if mark else -1
        if end > 0:
            out.append(token[1:end])
            self.tokens[self.at] = token[end + 1 :]

    def _unknown(self, name: str, out: list[str], *, maths: bool) -> None:
        """Read an unknown command: keep its arguments, or its name if it has none."""
        if self._next() == "{":
            self.at += 1
            inside = self._group(maths=maths and not name.startswith(("text", "mbox", "operator")))
            if inside.strip():
                # \TT{word} is a style command, not part of the word.
                out.append(inside)
                return
        elif name.startswith(("text", "math", "bm", "boldsymbol", "operatorname")):
            out.append(self._argument(maths=maths))
            return
        out.append(name)


def _bracketed(text: str) -> str:
    text = text.strip()
    return text if text.isalnum() or len(text) <= 1 else f"({text})"
