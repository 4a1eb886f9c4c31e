"""Feeds of the fake server, in the form of https://github.com/arXiv/arxiv-feed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from etude.papers.calendar import EASTERN, feed_day, last_feed
from etude.papers.categories import CATEGORIES
from etude.papers.fake_arxiv.texts import mail_date, tex, xml
from etude.papers.fake_arxiv.world import State, World
from etude.papers.record import Announcement

CAP = 2000
_ARCHIVES = {category.split(".")[0] for category in CATEGORIES}


@dataclass(frozen=True, slots=True)
class Shown:
    """Faults of a feed's content."""

    stale: bool = False
    lag: bool = False
    empty: bool = False
    cap: int = CAP


def wrong_query(query: str) -> str | None:
    """Return the error in the categories of a feed's URL, or None."""
    names = query.split("+")
    known = {name.lower() for name in CATEGORIES | _ARCHIVES}
    if not query or any(not re.fullmatch(r"[A-Za-z.-]+", name) for name in names):
        return f"Invalid query '{query}'. Expected archive or archive.subject-class, joined by '+'."
    for name in names:
        if name.lower() not in known:
            archive, _, subject = name.partition(".")
            if subject and archive.lower() in {of.lower() for of in _ARCHIVES}:
                return (
                    f"Bad subject class '{subject}'. Valid subject classes for the archive exist."
                )
            return f"Bad archive '{archive}'. Valid archives are: {', '.join(sorted(_ARCHIVES))}."
    return None


def feed(
    world: World, form: str, query: str, moment: datetime, shown: Shown, server: str
) -> tuple[int, bytes]:
    """Return status and body of a feed at `moment`; `form` is `rss` or `atom`."""
    day = feed_day(moment)
    midnight = datetime.combine(day, time(), EASTERN)
    if shown.lag:
        midnight -= timedelta(days=1)
    link = f"{server}/{form}/{query}"
    error = wrong_query(query)
    if error is not None:
        title = f"Feed error for query: {link}"
        return 400, _document(form, title, error, link, midnight, [])
    if shown.stale:
        day = last_feed(day - timedelta(days=1))
    names = query.split("+")
    items = [] if shown.empty else world.announced(day, names)[: shown.cap][::-1]
    title = f"{', '.join(names)} updates on arXiv.org"
    about = f"{', '.join(names)} updates on the arXiv.org e-print archive."
    return 200, _document(form, title, about, link, midnight, items)


def _document(
    form: str,
    title: str,
    about: str,
    link: str,
    midnight: datetime,
    items: Sequence[tuple[State, Announcement]],
) -> bytes:
    if form == "atom":
        body = _atom(title, about, link, midnight, items)
    else:
        body = _rss(title, about, link, midnight, items)
    return body.encode()


def _rss(
    title: str,
    about: str,
    link: str,
    midnight: datetime,
    items: Sequence[tuple[State, Announcement]],
) -> str:
    date = mail_date(midnight)
    parts = [
        "<?xml version='1.0' encoding='UTF-8'?>\n"
        '<rss xmlns:arxiv="http://arxiv.org/schemas/atom" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:atom="http://www.w3.org/2005/Atom" '
        'xmlns:content="http://purl.org/rss/1.0/modules/content/" version="2.0">\n'
        f"  <channel>\n    <title>{xml(title)}</title>\n    <link>{xml(link)}</link>\n"
        f"    <description>{xml(about)}</description>\n"
        f'    <atom:link href="{xml(link)}" rel="self" type="application/rss+xml"/>\n'
        "    <docs>http://www.rssboard.org/rss-specification</docs>\n"
        f"    <language>en-us</language>\n    <lastBuildDate>{date}</lastBuildDate>\n"
        "    <managingEditor>rss-help@arxiv.org</managingEditor>\n"
        f"    <pubDate>{date}</pubDate>\n"
        "    <skipDays>\n      <day>Saturday</day>\n      <day>Sunday</day>\n    </skipDays>\n"
    ]
    for state, kind in items:
        version = state.event.version
        parts.append(
            f"    <item>\n      <title>{xml(version.title)}</title>\n"
            f"      <link>https://arxiv.org/abs/{state.paper.id}</link>\n"
            f"      <description>{xml(_description(state, kind))}</description>\n"
            f'      <guid isPermaLink="false">{_guid(state)}</guid>\n'
        )
        parts += [f"      <category>{of}</category>\n" for of in state.event.categories]
        parts.append(f"      <pubDate>{date}</pubDate>\n{_more(state, kind)}    </item>\n")
    parts.append("  </channel>\n</rss>\n")
    return "".join(parts)


def _atom(
    title: str,
    about: str,
    link: str,
    midnight: datetime,
    items: Sequence[tuple[State, Announcement]],
) -> str:
    date = midnight.isoformat()
    parts = [
        "<?xml version='1.0' encoding='UTF-8'?>\n"
        '<feed xmlns:arxiv="http://arxiv.org/schemas/atom" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns="http://www.w3.org/2005/Atom" xml:lang="en-us">\n'
        f"  <id>{xml(link)}</id>\n  <title>{xml(title)}</title>\n  <updated>{date}</updated>\n"
        f'  <link href="{xml(link)}" rel="self" type="application/atom+xml"/>\n'
        f"  <subtitle>{xml(about)}</subtitle>\n"
    ]
    for state, kind in items:
        version = state.event.version
        parts.append(
            f"  <entry>\n    <id>{_guid(state)}</id>\n    <title>{xml(version.title)}</title>\n"
            f"    <updated>{date}</updated>\n"
            f'    <link href="https://arxiv.org/abs/{state.paper.id}" rel="alternate" '
            'type="text/html"/>\n'
            f"    <summary>{xml(_description(state, kind))}</summary>\n"
        )
        parts += [f'    <category term="{of}"/>\n' for of in state.event.categories]
        parts.append(f"    <published>{date}</published>\n{_more(state, kind)}  </entry>\n")
    parts.append("</feed>\n")
    return "".join(parts)


def _guid(state: State) -> str:
    return f"oai:arXiv.org:{state.paper.id}v{state.event.version.number}"


def _description(state: State, kind: Announcement) -> str:
    full = f"{state.paper.id}v{state.event.version.number}"
    return f"arXiv:{full} Announce Type: {kind.value} \nAbstract: {state.event.version.abstract}"


def _more(state: State, kind: Announcement) -> str:
    event = state.event
    creators = ", ".join(tex(name) for name in event.version.authors)
    found = f"      <arxiv:announce_type>{kind.value}</arxiv:announce_type>\n"
    found += f"      <dc:rights>{xml(event.licence)}</dc:rights>\n" if event.licence else ""
    found += f"      <arxiv:DOI>{xml(event.doi)}</arxiv:DOI>\n" if event.doi else ""
    if event.journal_ref:
        reference = xml(event.journal_ref)
        found += f"      <arxiv:journal_reference>{reference}</arxiv:journal_reference>\n"
    return f"{found}      <dc:creator>{xml(creators)}</dc:creator>\n"
