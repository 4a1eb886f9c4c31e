"""Checks for e-mail addresses, keys and private numbers, which are masked in all output.

A model can be made to repeat what it was trained on (Carlini et al. 2021, "Extracting Training
Data from Large Language Models"), so what must not be published must not be learnt.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from etude.tuning.data.check.findings import Entry, Finding


@dataclass(frozen=True)
class Secret:
    """A kind of private text."""

    name: str
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = lambda _: True
    """Whether a match is one: checksums, entropy."""
    hint: str = ""
    """A text that all matches hold, looked for first; it is far quicker than the pattern."""


def luhn(number: str) -> bool:
    """Tell whether digits begin as a card's and end in their check digit (ISO/IEC 7812-1)."""
    digits = [int(digit) for digit in re.sub(r"\D", "", number)]
    issuer = (
        digits[0] in (4, 5, 6)
        or digits[:2] in ([3, 4], [3, 6], [3, 7], [3, 8])
        or (22 <= 10 * digits[0] + digits[1] <= 27)
    )
    if not issuer or len(set(digits)) < 4:
        return False
    doubled = [
        d if i % 2 == 0 else (2 * d - 9 if d > 4 else 2 * d) for i, d in enumerate(digits[::-1])
    ]
    return sum(doubled) % 10 == 0


def iban(account: str) -> bool:
    """Tell whether an account number has the remainder 1 of ISO 13616."""
    text = account.replace(" ", "")
    # Check digits are 98 less a remainder of 97, so that 00, 01 and 99 are none.
    if not 15 <= len(text) <= 34 or not 2 <= int(text[2:4]) <= 98:
        return False
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def entropy(text: str) -> float:
    """Return the bits a character that its letters hold, by their frequencies."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


def _random(text: str) -> bool:
    value = re.split(r"[\s=:\"']+", text.strip("\"' ,;"))[-1]
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return len(value) >= 16 and mixed and entropy(value) >= 3.5


_RESERVED = ("example.com", "example.org", "example.net", "example.edu", "localhost", "test.com")


def _address(text: str) -> bool:
    domain = text.rpartition("@")[2].lower()
    return not domain.endswith((*_RESERVED, ".example", ".test", ".invalid", ".png", ".jpg"))


SECRETS = (
    Secret(
        "e-mail address",
        re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}\b"),
        _address,
        "@",
    ),
    Secret("private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"), hint="PRIVATE KEY"),
    Secret("AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    Secret(
        "GitHub token",
        re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{50,255})\b"),
        hint="_",
    ),
    Secret(
        "OpenAI or Anthropic key", re.compile(r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{20,}"), hint="sk-"
    ),
    Secret("Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"), hint="hf_"),
    Secret("Slack token", re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}"), hint="xox"),
    Secret("Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}"), hint="AIza"),
    Secret("Stripe key", re.compile(r"\b[sr]k_live_[0-9A-Za-z]{16,}"), hint="k_live_"),
    Secret("web token", re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"), hint="eyJ"),
    Secret(
        "password or key",
        re.compile(
            r"(?i)\b(?:password|passwd|secret|api[_-]?key|access[_-]?token|auth[_-]?token)\b"
            r"[\"']?\s{0,3}[=:]\s{0,3}[\"']?[^\s\"',;]{16,120}"
        ),
        _random,
    ),
    Secret(
        "card number",
        re.compile(
            r"(?<![\d.,-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{5}|\d{14,16})"
            r"(?![\d]|[.,-]\d)"
        ),
        luhn,
    ),
    Secret(
        "bank account",
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        iban,
    ),
)


def secrets_in(text: str) -> Iterator[tuple[Secret, str]]:
    """Yield each private piece of a text with its kind."""
    for secret in SECRETS:
        if secret.hint and secret.hint not in text:
            continue
        for match in secret.pattern.finditer(text):
            if secret.holds(match[0]):
                yield secret, match[0]


def masked(secret: Secret, text: str) -> str:
    """Return enough of a secret to find it by, and no more."""
    if secret.name == "e-mail address":
        name, _, domain = text.partition("@")
        return f"{name[0]}***@***.{domain.rpartition('.')[2]}"
    if secret.name == "private key":
        return "-----BEGIN … PRIVATE KEY-----"
    if secret.name == "password or key":
        return f"{re.split('[=:]', text)[0].strip()}=***"
    return f"{text[:4]}***"


class Secrets:
    """What looks private, a finding a kind."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Finding] = {}

    def see(self, entry: Entry) -> None:
        """Look at every text, and at columns that are not read into samples."""
        for text in entry.texts:
            for secret, match in secrets_in(text):
                finding = self._by_kind.get(secret.name) or self._new(secret)
                finding.add(entry.origin, f"{entry.origin}: {masked(secret, match)}")

    def _new(self, secret: Secret) -> Finding:
        personal = secret.name in ("e-mail address", "card number", "bank account")
        finding = Finding(
            "private",
            "warning" if secret.name == "e-mail address" else "error",
            f"possible {secret.name}",
            "a tuned model can be made to repeat it; remove it"
            + ("" if personal else ", and revoke the key"),
        )
        self._by_kind[secret.name] = finding
        return finding

    def findings(self) -> Iterable[Finding]:
        """Return the kinds that were seen."""
        return list(self._by_kind.values())
