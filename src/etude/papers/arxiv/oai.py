"""OAI-PMH client: records by the day of their last change. The source of truth.

A record's day is that of its last metadata change, not of its submission, and only its newest
version is included. Pages hold 2,500 records ordered by day and id. A resumption token, which
expires at midnight UTC, requests the next page; it is opaque. Errors come with HTTP 200.
Source: https://info.arxiv.org/help/oa/index.html and the server, https://github.com/arXiv/oaipmh.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from xml.etree.ElementTree import Element

from etude.core.errors import SourceError
from etude.papers.arxiv.rate_limited_client import Answer, DamagedError, RateLimitedClient
from etude.papers.arxiv.text import day, moment, names_in, parsed, plain_name, says_withdrawn
from etude.papers.identity import parse_identifier
from etude.papers.record import Sighting

_OAI = "{http://www.openarchives.org/OAI/2.0/}"
_PLAIN = "{http://arxiv.org/OAI/arXiv/}"
_RAW = "{http://arxiv.org/OAI/arXivRaw/}"


class ExpiredTokenError(SourceError):
    """A resumption token that has expired: continue by date."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a harvest."""

    records: tuple[Sighting, ...]
    token: str | None
    """Resumption token of the next page; None on the last one."""
    expires: datetime | None
    """Expiry of the token, where the server reports it."""
    answered: date
    """The server's day, UTC: the next harvest starts here."""
    last: date | None
    """The latest datestamp on this page."""
    skipped: int = 0
    """Number of records that are malformed or marked deleted."""


def first_page(
    gate: RateLimitedClient, oai_set: str, since: date | None, *, form: str | None = None
) -> Page:
    """Fetch the first page of the records of `oai_set` that changed on `since` or later.

    Raises:
        SourceError: no answer, or the server refuses the request.
    """
    query = {
        "verb": "ListRecords",
        "metadataPrefix": form or gate.settings.oai_format,
        "set": oai_set,
    }
    if since is not None:
        query["from"] = since.isoformat()
    return gate.ask(gate.settings.oai, read_page, query=query)


def next_page(gate: RateLimitedClient, token: str) -> Page:
    """Fetch the page of a resumption token.

    Raises:
        ExpiredTokenError: the token has expired.
        SourceError: no answer, or another refusal.
    """
    # A token must be the only argument.
    query = {"verb": "ListRecords", "resumptionToken": token}
    return gate.ask(gate.settings.oai, read_page, query=query)


def read_page(answer: Answer) -> Page:
    """Parse a response; the page is empty where no record matches.

    Raises:
        DamagedError: the page is incomplete.
        ExpiredTokenError: the token has expired.
        SourceError: the server reports another error.
    """
    if answer.status != 200:
        raise SourceError(f"{answer.address} was refused: HTTP {answer.status}")
    root = parsed(answer.body, "the OAI-PMH response")
    answered = moment(root.findtext(f"{_OAI}responseDate"))
    if root.tag != f"{_OAI}OAI-PMH" or answered is None:
        raise DamagedError("the response is not OAI-PMH")
    error = root.find(f"{_OAI}error")
    if error is not None:
        code, text = error.get("code", ""), " ".join((error.text or "").split())[:300]
        if code == "noRecordsMatch":
            return Page((), None, None, answered.date(), None)
        if code == "badResumptionToken":
            raise ExpiredTokenError(f"OAI-PMH rejects its resumption token: {text}")
        raise SourceError(f"OAI-PMH reports {code}: {text}")
    listing = root.find(f"{_OAI}ListRecords")
    if listing is None:
        raise DamagedError("the response has neither records nor an error")
    records: list[Sighting] = []
    last: date | None = None
    elements = listing.findall(f"{_OAI}record")
    for record in elements:
        stamp = day(record.findtext(f"{_OAI}header/{_OAI}datestamp"))
        last = max((of for of in (last, stamp) if of is not None), default=None)
        try:
            records.append(_record(record, stamp))
        except ValueError:
            continue
    token = listing.find(f"{_OAI}resumptionToken")
    text = (token.text or "").strip() if token is not None else ""
    return Page(
        tuple(records),
        text or None,
        moment(token.get("expirationDate")) if token is not None else None,
        answered.date(),
        last,
        len(elements) - len(records),
    )


def _record(record: Element, stamp: date | None) -> Sighting:
    metadata = record.find(f"{_OAI}metadata")
    found = metadata[0] if metadata is not None and len(metadata) else None
    if found is not None and found.tag == f"{_RAW}arXivRaw":
        return _raw(found, stamp)
    if found is not None and found.tag == f"{_PLAIN}arXiv":
        return _plain(found, stamp)
    raise ValueError("no metadata in a known format")


def _raw(found: Element, stamp: date | None) -> Sighting:
    text = {child.tag[len(_RAW) :]: child.text or "" for child in found}
    newest, first = 0, None
    updated: datetime | None = None
    source = ""
    for version in found.findall(f"{_RAW}version"):
        number = int(version.get("version", "v0")[1:])
        when = moment(version.findtext(f"{_RAW}date"))
        if number == 1:
            first = when
        if number > newest:
            newest, updated = number, when
            source = version.findtext(f"{_RAW}source_type") or ""
    if not newest:
        raise ValueError("a record without versions")
    comment, abstract = text.get("comments", ""), text.get("abstract", "")
    return Sighting(
        parse_identifier(text.get("id", "")).id,
        _required(text, "title"),
        abstract,
        names_in(text.get("authors", "")),
        _categories(text),
        version=newest,
        published=first,
        updated=updated,
        comment=comment,
        journal_ref=text.get("journal-ref", ""),
        doi=text.get("doi", ""),
        licence=text.get("license", ""),
        datestamp=stamp,
        # Some withdrawn papers keep their old source type, so the comment is checked as well.
        withdrawn="I" in source or says_withdrawn(comment, abstract),
    )


def _plain(found: Element, stamp: date | None) -> Sighting:
    text = {child.tag[len(_PLAIN) :]: child.text or "" for child in found}
    names = [
        " ".join(
            part
            for part in (
                author.findtext(f"{_PLAIN}forenames"),
                author.findtext(f"{_PLAIN}keyname"),
                author.findtext(f"{_PLAIN}suffix"),
            )
            if part
        )
        for author in found.findall(f"{_PLAIN}authors/{_PLAIN}author")
    ]
    comment, abstract = text.get("comments", ""), text.get("abstract", "")
    created = moment(text.get("created"))
    return Sighting(
        parse_identifier(text.get("id", "")).id,
        _required(text, "title"),
        abstract,
        tuple(plain_name(name) for name in names if name.strip()),
        _categories(text),
        published=created,
        updated=moment(text.get("updated")) or created,
        comment=comment,
        journal_ref=text.get("journal-ref", ""),
        doi=text.get("doi", ""),
        licence=text.get("license", ""),
        datestamp=stamp,
        withdrawn=True if says_withdrawn(comment, abstract) else None,
    )


def _required(text: dict[str, str], name: str) -> str:
    if name not in text:
        raise ValueError(f"a record without {name}")
    return text[name]


def _categories(text: dict[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.get("categories", "").split()))
