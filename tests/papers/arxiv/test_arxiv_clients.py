"""The three clients against recorded answers, hand-written ones, and a replay."""

import json
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from etude.core.errors import SourceError
from etude.papers.arxiv.feeds import fetch_feed, read_feed
from etude.papers.arxiv.oai import ExpiredTokenError, first_page, next_page, read_page
from etude.papers.arxiv.query import by_id, changed, read_results, submitted
from etude.papers.arxiv.rate_limited_client import Answer, DamagedError, RateLimitedClient
from etude.papers.arxiv.text import names_in, plain_name, says_withdrawn
from etude.papers.fake_arxiv import ReplayServer, World, generated
from etude.papers.fake_arxiv.oai import Pages
from etude.papers.fake_arxiv.texts import tex
from etude.papers.fake_arxiv.world import Event, FakePaper, Version
from etude.papers.record import Announcement
from etude.papers.settings import Settings

NOON = datetime(2026, 5, 8, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def recorded_answers(request):
    folder = request.getfixturevalue("shared_data") / "papers" / "api"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@pytest.fixture(scope="module")
def world():
    return generated(200)


@pytest.fixture
def server(world):
    with ReplayServer(world, now=NOON, pages=Pages(records=30)) as running:
        yield running


@pytest.fixture
def gate(server, tmp_path):
    with RateLimitedClient(Settings().at(server.address, timeout=5), folder=tmp_path) as asked:
        yield asked


def answer(body, status=200, **headers):
    return Answer("http://127.0.0.1/x", status, headers, body.encode())


# Text.


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"Andr\'e", "André"),
        (r"Andr{\'e}", "André"),
        (r"Andr\'{e}", "André"),
        (r"J{\"o}rg M\"uller", "Jörg Müller"),
        (r"{\L}ukasz", "Łukasz"),
        (r"\L ukasz", "Łukasz"),
        (r"S{\o}ren \O{}stergaard", "Søren Østergaard"),
        (r"Ho\v{r}ava", "Hořava"),
        (r"Bo\v zidar", "Božidar"),
        (r"Erd\H{o}s", "Erdős"),
        (r"Fran\c{c}ois", "François"),
        (r"Mart\'{\i}n and", "Martín and"),
        (r"Mart\'\in", r"Mart\'\in"),
        (r"N\'u\~nez", "Núñez"),
        (r"Stra\ss{}e", "Straße"),
        (r"\'Angel", "Ángel"),
        ("Jose\u0301", "José"),
        ("A.~B. {Van} Dyke", "A. B. Van Dyke"),
        (r"unknown \macro{x}", r"unknown \macrox"),
        ("O'Neil", "O'Neil"),
    ],
)
def test_names_in_tex_are_read_as_letters(written, meant):
    assert plain_name(written) == meant


def test_names_survive_being_written_in_tex_and_read_again():
    for name in [
        "Łukasz Nowák",
        "Søren Østergaard",
        "İpek Yılmaz",
        "Jiří Dvořák",
        "Erdős",
        "Çelik",
    ]:
        assert tex(name) != name
        assert plain_name(tex(name)) == name


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Roldao da Rocha, Waldyr A. Rodrigues Jr", ["Roldao da Rocha", "Waldyr A. Rodrigues Jr"]),
        ("A. One, B. Two and C. Three", ["A. One", "B. Two", "C. Three"]),
        ("A. One (1 and 2), B. Two ((1) Here, MIT, (2) There)", ["A. One", "B. Two"]),
        ("A. One, Jr., B. Two", ["A. One Jr.", "B. Two"]),
        ("Ferdinand Anders", ["Ferdinand Anders"]),
        ("A. One (never closed, B", ["A. One"]),
        ("", []),
    ],
)
def test_a_line_of_authors_is_split(text, names):
    assert list(names_in(text)) == names


@pytest.mark.parametrize(
    "comment",
    [
        "This paper has been withdrawn by the author due to an error",
        "12 pages. Withdrawn",
        "Withdrawn by arXiv administrators",
        "arXiv admin note: paper withdrawn",
        "The article was retracted",
    ],
)
def test_comments_that_withdraw(comment):
    assert says_withdrawn(comment)


@pytest.mark.parametrize(
    "comment", ["On withdrawn papers", "the withdrawn samples", "drug withdrawal", "", None]
)
def test_comments_that_do_not_withdraw(comment):
    assert not says_withdrawn(comment, "We study why papers are withdrawn.")


def test_endless_text_takes_no_endless_time():
    bombs = ["(" * 200_000, "\n" * 200_000, "{" * 200_000, "\\'{" * 60_000, " and" * 60_000]
    for bomb in bombs:
        names_in(bomb)
        says_withdrawn(bomb, bomb)
    people = ", ".join(f"Author {number}" for number in range(3303))
    assert len(names_in(people)) == 3303


@pytest.mark.parametrize(
    "body",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><feed>&b;</feed>',
        '<!DOCTYPE x SYSTEM "file:///etc/passwd"><feed/>',
        "<feed><entry>",
        "",
        "<html><body><p>Please wait<br></body></html>",
        "\x00\x01",
        '<?xml version="1.0" encoding="nonsense"?><feed/>',
    ],
)
@pytest.mark.parametrize("read", [read_feed, read_page, read_results])
def test_what_is_no_whole_answer_is_asked_for_again(read, body):
    with pytest.raises(DamagedError):
        read(answer(body))


# The query API.


def test_every_recorded_answer_is_understood(recorded_answers):
    assert len(recorded_answers) == 20
    for found in recorded_answers:
        read = answer(found["body"], found["status_code"])
        if found["status_code"] == 400:
            with pytest.raises(SourceError, match="incorrect id format for abc"):
                read_results(read)
            continue
        results = read_results(read)
        assert len(results.papers) == found["body"].count("<entry>")
        assert results.skipped == 0
        for paper in results.papers:
            assert paper.version is not None
            assert paper.title and paper.abstract and paper.authors and paper.categories
            assert paper.published <= paper.updated


def test_a_recorded_title_that_is_0_and_an_old_id_are_kept(recorded_answers):
    papers = {
        paper.id: paper
        for found in recorded_answers
        if found["status_code"] == 200
        for paper in read_results(answer(found["body"])).papers
    }
    assert papers["2104.12255"].title == "0"
    assert papers["astro-ph/0601001"].journal_ref == "ActaAstron.56:1-50,2006"
    assert papers["2202.12139"].doi == "10.1109/ICSTW55395.2022.00035"
    # Mistakes of arXiv's own stay as they are.
    assert "Dirk WÃ¼bben" in papers["1707.08567"].authors


ATOM = "{http://www.w3.org/2005/Atom}"


def shape(body):
    """Entries of a feed with all their content, in no order; what the clock decides left out."""
    root = ET.fromstring(body)

    def flat(element):
        # Affiliations are not replayed, and authors of that age have them within their name.
        return (
            element.tag,
            tuple(sorted(element.attrib.items())),
            (element.text or "").strip(),
            tuple(flat(child) for child in element if not child.tag.endswith("affiliation")),
        )

    head = {child.tag: flat(child) for child in root if child.tag != f"{ATOM}entry"}
    head.pop(f"{ATOM}updated")
    entries = [Counter(flat(child) for child in entry) for entry in root.iter(f"{ATOM}entry")]
    for entry in entries:
        for part in [part for part in entry if part[0] == f"{ATOM}updated" and not part[2]]:
            del entry[part]
    return head, entries


def world_of(answers):
    """The papers of recorded answers, read here by other means than the client's."""
    arxiv = "{http://arxiv.org/schemas/atom}"
    world = World()
    for found in answers:
        for entry in ET.fromstring(found["body"]).iter(f"{ATOM}entry"):
            key = entry.findtext(f"{ATOM}id").partition("/abs/")[2]
            if not key:
                continue
            name, _, number = key.rpartition("v")
            moments = [
                datetime.fromisoformat(entry.findtext(f"{ATOM}{kind}"))
                for kind in ("published", "updated")
            ]
            more = {
                "journal_ref": entry.findtext(f"{arxiv}journal_ref") or "",
                "doi": entry.findtext(f"{arxiv}doi") or "",
            }
            categories = tuple(of.get("term") for of in entry.findall(f"{ATOM}category"))
            events = [
                Event(
                    moment.date() + timedelta(days=7),
                    Announcement.NEW,
                    Version(
                        number,
                        moment,
                        entry.findtext(f"{ATOM}title"),
                        entry.findtext(f"{ATOM}summary"),
                        tuple(of.text for of in entry.iter(f"{ATOM}name")),
                        entry.findtext(f"{arxiv}comment") or "",
                    ),
                    categories,
                    **more,
                )
                for number, moment in zip((1, int(number)), moments, strict=True)
                if number == int(key.rpartition("v")[2]) or moment == moments[0]
            ]
            if name not in world.papers:
                world.add(FakePaper(name, events))
    return world


def test_the_replay_answers_as_the_recorded_server_did(recorded_answers):
    import httpx

    now = datetime(2026, 5, 12, tzinfo=UTC)
    with ReplayServer(world_of(recorded_answers), now=now) as server:
        compared = 0
        for found in recorded_answers:
            if "id_list=&" in found["url"]:
                continue
            query = found["url"].partition("?")[2]
            got = httpx.get(f"{server.address}/api/query?{query}")
            assert got.status_code == found["status_code"], query
            head, entries = shape(got.text)
            expected_head, expected = shape(found["body"])
            if found["status_code"] == 400:
                for entry in (*entries, *expected):
                    for part in [part for part in entry if part[0] == f"{ATOM}updated"]:
                        del entry[part]
            assert head == expected_head
            assert entries == expected
            compared += 1
    assert compared == 9


def test_a_window_of_dates_gives_each_paper_once_sorted(gate, world):
    begin, end = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 5, 9, tzinfo=UTC)
    pages = list(submitted(gate, ["cs.CV", "stat.ML"], begin, end))
    found = [paper for page in pages for paper in page]
    expected = {
        paper.id
        for paper in world.papers.values()
        if {"cs.CV", "stat.ML"} & set(_at(paper, NOON).categories)
    }
    assert {paper.id for paper in found} == expected
    assert len(found) == len(expected)
    assert [paper.published for paper in found] == sorted(paper.published for paper in found)


def _at(paper, moment):
    return [event for event in paper.events if event.day <= moment.date()][-1]


def test_a_window_with_more_than_the_api_gives_is_halved(gate, server, monkeypatch):
    monkeypatch.setattr("etude.papers.fake_arxiv.query.FURTHEST", 50)
    monkeypatch.setattr("etude.papers.fake_arxiv.query.LARGEST_PAGE", 20)
    monkeypatch.setattr("etude.papers.arxiv.query.FURTHEST", 50)
    monkeypatch.setattr("etude.papers.arxiv.query.PAGE", 20)
    begin, end = datetime(2026, 4, 30, tzinfo=UTC), datetime(2026, 5, 9, tzinfo=UTC)
    found = {
        paper.id for page in submitted(gate, Settings().categories, begin, end) for paper in page
    }
    assert len(found) == 200
    starts = [int(asked.path.partition("start=")[2].partition("&")[0]) for asked in server.log]
    assert max(starts) < 50


@pytest.mark.parametrize(
    "faults",
    [
        ["query:shufflex*"],
        ["query:emptyx2"],
        ["query:total=7x*"],
        ["query:truncate", "query:cut", "query:reset", "query:html"],
        ["query:429=0", "query:503", "query:403", "query:500"],
    ],
    ids=str,
)
def test_a_query_that_meets_faults_gives_all_papers(gate, server, monkeypatch, faults):
    monkeypatch.setattr("etude.papers.arxiv.query._pages.__defaults__", (60,))
    server.spoil(*faults)
    begin, end = datetime(2026, 4, 30, tzinfo=UTC), datetime(2026, 5, 9, tzinfo=UTC)
    pages = list(submitted(gate, Settings().categories, begin, end))
    assert len({paper.id for page in pages for paper in page}) == 200
    for page in pages:
        assert [paper.published for paper in page] == sorted(paper.published for paper in page)


def test_a_count_that_is_too_high_is_told_and_does_not_go_on_for_ever(gate, server):
    server.spoil("query:total=900x*")
    begin, end = datetime(2026, 4, 30, tzinfo=UTC), datetime(2026, 5, 9, tzinfo=UTC)
    told = []
    pages = list(submitted(gate, Settings().categories, begin, end, told.append))
    assert sum(map(len, pages)) == 200
    assert "counted 900 papers, returned 200" in told[0]


@pytest.mark.parametrize("fault", ["query:error", "query:error200"])
def test_errors_under_400_and_200_are_told_and_not_repeated(gate, server, fault):
    server.spoil(fault)
    with pytest.raises(SourceError, match="start must be an integer"):
        by_id(gate, ["2605.00001"])
    assert len(server.log) == 1


def test_ids_are_not_cut_at_ten_and_unknown_ones_are_left_out(gate, server, world):
    ids = list(world.papers)[:25]
    found = by_id(gate, [*ids, "0808.05394"])
    assert [paper.id for paper in found] == ids
    server.spoil("query:missing")
    assert len(by_id(gate, ids)) == 12


def test_the_newest_changes_stop_where_two_pages_in_a_row_are_known(gate, server):
    pages = list(changed(gate, Settings().categories, lambda ids: set(), page=50))
    assert [len(page) for page in pages] == [50, 50, 50, 50]
    newest = pages[0][0]
    assert newest.updated == max(paper.updated for page in pages for paper in page)
    seen = {(paper.id, paper.version) for page in pages[1:] for paper in page}

    def known(ids):
        return {of for of in ids if (of.id, of.version) in seen}

    assert len(list(changed(gate, Settings().categories, known, page=50))) == 3


# OAI-PMH.


def harvest(gate, since=None, oai_set="cs:cs:CV", form=None):
    pages = [first_page(gate, oai_set, since, form=form)]
    while pages[-1].token:
        pages.append(next_page(gate, pages[-1].token))
    return pages


@pytest.mark.parametrize("size", [1, 7, 30, 2500])
def test_pages_within_a_day_and_across_days_give_each_record_once(gate, server, world, size):
    server.pages = Pages(records=size)
    pages = harvest(gate, date(2026, 5, 5))
    found = [paper for page in pages for paper in page.records]
    expected = [
        paper.id
        for paper in world.papers.values()
        if "cs.CV" in _at(paper, NOON).categories and _at(paper, NOON).day >= date(2026, 5, 5)
    ]
    assert len(expected) > 60
    assert sorted(paper.id for paper in found) == sorted(expected)
    assert [paper.datestamp for paper in found] == sorted(paper.datestamp for paper in found)
    assert pages[0].answered == NOON.date()
    expires = {page.expires for page in pages if page.expires}
    assert expires <= {datetime(2026, 5, 9, tzinfo=UTC)}


def test_both_formats_tell_of_the_same_papers(gate):
    raw = {paper.id: paper for page in harvest(gate) for paper in page.records}
    plain = {paper.id: paper for page in harvest(gate, form="arXiv") for paper in page.records}
    assert raw.keys() == plain.keys()
    for key, paper in raw.items():
        other = plain[key]
        assert other.version is None
        assert paper.version >= 1
        same = ("title", "abstract", "authors", "categories", "comment", "doi", "journal_ref")
        for name in (*same, "licence", "datestamp"):
            assert getattr(paper, name) == getattr(other, name), name
        assert paper.published.date() == other.published.date()
        assert paper.updated.date() == other.updated.date()


def test_a_withdrawal_a_second_version_and_an_edit_are_seen(gate, world):
    found = {
        paper.id: paper
        for category in ("cs:cs:CV", "cs:cs:CL", "cs:cs:LG", "cs:cs:AI", "stat:stat:ML")
        for page in harvest(gate, oai_set=category)
        for paper in page.records
    }
    assert found.keys() == world.papers.keys()
    kinds = Counter()
    for key, paper in found.items():
        event = _at(world.papers[key], NOON)
        assert paper.version == event.version.number
        assert paper.withdrawn == (event.version.source == "I")
        assert (paper.doi, paper.journal_ref) == (event.doi, event.journal_ref)
        assert paper.published == world.papers[key].first.submitted
        kinds[paper.version, paper.withdrawn, bool(paper.doi)] += 1
    assert {(1, False, False), (2, False, False), (3, True, False), (1, False, True)} <= set(kinds)


def test_an_old_source_type_does_not_hide_a_withdrawal():
    body = OAI.format(
        "<ListRecords><record><header><identifier>oai:arXiv.org:0906.3336</identifier>"
        "<datestamp>2010-01-02</datestamp></header><metadata>"
        '<arXivRaw xmlns="http://arxiv.org/OAI/arXivRaw/"><id>0906.3336</id>'
        '<version version="v1"><date>Wed, 17 Jun 2009 21:00:00 GMT</date></version>'
        '<version version="v2"><date>Fri, 1 Jan 2010 00:00:00 GMT</date></version>'
        "<title>T</title><authors>A</authors><categories>math.CO</categories>"
        "<comments>This paper has been withdrawn</comments><abstract>B</abstract>"
        "</arXivRaw></metadata></record></ListRecords>"
    )
    (paper,) = read_page(answer(body)).records
    assert (paper.withdrawn, paper.version) == (True, 2)
    assert paper.updated == datetime(2010, 1, 1, tzinfo=UTC)


OAI = (
    '<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/">'
    "<responseDate>2026-05-08T12:00:00Z</responseDate><request/>{}</OAI-PMH>"
)


def test_records_that_make_no_sense_are_counted_and_the_others_kept():
    good = (
        "<record><header><datestamp>2026-05-07</datestamp></header><metadata>"
        '<arXiv xmlns="http://arxiv.org/OAI/arXiv/"><id>2605.00001</id><created>2026-05-06</created>'
        "<authors/><title>T</title><categories>cs.CV</categories></arXiv></metadata></record>"
    )
    deleted = '<record><header status="deleted"><datestamp>2026-05-07</datestamp></header></record>'
    wrong = good.replace("2605.00001", "../../etc/passwd")
    page = read_page(answer(OAI.format(f"<ListRecords>{deleted}{wrong}{good}</ListRecords>")))
    assert [paper.id for paper in page.records] == ["2605.00001"]
    assert page.skipped == 2


def test_no_records_match_is_an_empty_page(gate):
    page = first_page(gate, "cs:cs:CV", date(2026, 5, 30))
    assert (page.records, page.token, page.answered) == ((), None, NOON.date())


@pytest.mark.parametrize(
    ("oai_set", "since", "text"),
    [
        ("cs:cs:XX", None, "Set does not exist"),
        ("cs:cs:CV", date(2004, 1, 1), "too early"),
    ],
)
def test_errors_under_status_200_are_told_and_not_repeated(gate, server, oai_set, since, text):
    with pytest.raises(SourceError, match=f"badArgument.*{text}"):
        first_page(gate, oai_set, since)
    assert len(server.log) == 1


def test_an_unknown_format_and_an_expired_token_are_told_apart(gate, server):
    with pytest.raises(SourceError, match="cannotDisseminateFormat"):
        first_page(gate, "cs:cs:CV", None, form="marc")
    token = first_page(gate, "cs:cs:CV", None).token
    server.spoil("oai:expired")
    with pytest.raises(ExpiredTokenError):
        next_page(gate, token)
    assert next_page(gate, token).records


def test_a_record_that_comes_twice_is_given_twice_for_the_library_to_join(gate, server):
    server.spoil("oai:twice")
    records = first_page(gate, "cs:cs:CV", None).records
    assert records[0] == records[1]


@pytest.mark.parametrize(
    "query",
    [
        "verb=ListRecords",
        "verb=Nonsense",
        "verb=ListRecords&metadataPrefix=arXiv&from=2026-05-08&until=2026-05-07",
        "verb=ListRecords&metadataPrefix=arXiv&from=yesterday",
        "verb=ListRecords&metadataPrefix=arXiv&until=2026-05-10",
        "verb=ListRecords&metadataPrefix=arXiv&set=cs&set=math",
        "verb=ListRecords&resumptionToken=x&metadataPrefix=arXiv",
        "verb=ListRecords&resumptionToken=x",
        "verb=GetRecord&metadataPrefix=arXiv&identifier=oai:arXiv.org:0000.0000",
    ],
)
def test_the_replay_refuses_what_the_protocol_forbids(server, query):
    import httpx

    got = httpx.get(f"{server.address}/oai?{query}")
    assert got.status_code == 200
    assert ET.fromstring(got.text).find("{http://www.openarchives.org/OAI/2.0/}error") is not None


# Feeds.


@pytest.mark.parametrize("form", ["rss", "atom"])
def test_a_feed_tells_what_was_announced_with_versions_and_names(server, tmp_path, world, form):
    settings = Settings().at(server.address, feed_format=form)
    with RateLimitedClient(settings, folder=tmp_path) as gate:
        feed = fetch_feed(gate, ["cs.CV"])
    day = NOON.date()
    expected = world.announced(day, ["cs.CV"])
    assert len(feed.items) == len(expected) >= 20
    assert {item.announcement for item in feed.items} >= {Announcement.NEW, Announcement.CROSS}
    for item, (state, kind) in zip(feed.items, reversed(expected), strict=True):
        version = state.event.version
        assert (item.id, item.version) == (state.paper.id, version.number)
        assert (item.title, item.abstract) == (version.title, version.abstract)
        assert item.authors == version.authors
        assert item.categories == state.event.categories
        assert item.announcement is kind
        assert (item.doi, item.comment, item.announced) == (state.event.doi, None, None)
    assert feed.built.date() == day


def test_an_unchanged_feed_is_not_sent_again(gate, server):
    feed = fetch_feed(gate, ["cs.CV"])
    assert fetch_feed(gate, ["cs.CV"], feed.etag) is None
    assert [asked.status for asked in server.log] == [200, 304]
    server.now = NOON + timedelta(days=3)
    assert fetch_feed(gate, ["cs.CV"], feed.etag) is not None


@pytest.mark.parametrize("form", ["rss", "atom"])
def test_an_error_feed_under_400_is_told_and_not_repeated(server, tmp_path, form):
    settings = Settings().at(server.address, feed_format=form)
    with (
        RateLimitedClient(settings, folder=tmp_path) as gate,
        pytest.raises(SourceError, match="Bad archive"),
    ):
        fetch_feed(gate, ["zz.CV"])
    assert [asked.status for asked in server.log] == [400]


def test_the_cap_is_noticed_and_takes_new_papers_first(server, gate, world):
    server.cap = 2000
    assert not fetch_feed(gate, ["cs.CV"]).full
    server.cap = 5
    feed = fetch_feed(gate, ["cs.CV"])
    assert not any(item.announcement is Announcement.NEW for item in feed.items)
    full = replace(feed, items=feed.items * 400)
    assert full.full


def test_a_feed_of_a_whole_archive_leaves_nothing_out_below_the_cap(gate):
    whole = {item.id for item in fetch_feed(gate, ["cs"]).items}
    for category in ("cs.CV", "cs.CL", "cs.LG", "cs.AI"):
        assert {item.id for item in fetch_feed(gate, [category]).items} <= whole


def test_replacements_from_the_sixth_version_on_are_in_no_feed():
    version = Version(6, NOON, "T", "A", ("B",))
    event = Event(NOON.date(), Announcement.REPLACE, version, ("cs.CV",))
    world = World()
    world.add(FakePaper("2401.00001", [event]))
    assert world.announced(NOON.date(), ["cs.CV"]) == []
