"""OAI-PMH of the fake server, as in https://github.com/arXiv/oaipmh; errors use HTTP 200."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from urllib.parse import parse_qs, quote, unquote, urlencode

from etude.papers.categories import CATEGORIES, oai_set
from etude.papers.fake_arxiv.texts import iso, tex, xml
from etude.papers.fake_arxiv.world import State, World

EARLIEST = date(2005, 9, 16)
FORMATS = {
    "oai_dc": "http://www.openarchives.org/OAI/2.0/oai_dc/",
    "arXiv": "http://arxiv.org/OAI/arXiv/",
    "arXivRaw": "http://arxiv.org/OAI/arXivRaw/",
}
SETS = sorted(
    {
        ":".join(parts[:length])
        for parts in (oai_set(category).split(":") for category in CATEGORIES)
        for length in range(1, len(parts) + 1)
    }
)
_OFTEN = {
    "Identify": (set[str](), set[str]()),
    "ListMetadataFormats": (set[str](), {"identifier"}),
    "ListSets": (set[str](), {"resumptionToken"}),
    "GetRecord": ({"identifier", "metadataPrefix"}, set[str]()),
    "ListRecords": ({"metadataPrefix"}, {"from", "until", "set"}),
    "ListIdentifiers": ({"metadataPrefix"}, {"from", "until", "set"}),
}


class OaiError(Exception):
    """An error of the OAI-PMH protocol."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Pages:
    """Page sizes, and faults."""

    records: int = 2500
    headers: int = 20_000
    expired: bool = False
    twice: bool = False


def answer(
    world: World, query: Sequence[tuple[str, str]], moment: datetime, pages: Pages, server: str
) -> bytes:
    """Return the body of a response; the status is always 200."""
    shown: dict[str, str] = {}
    try:
        arguments = dict(query)
        if len(arguments) != len(query):
            raise OaiError("badArgument", "No duplicate arguments allowed")
        verb = arguments.pop("verb", "")
        if verb not in _OFTEN:
            raise OaiError("badVerb", f"Invalid verb provided: {verb!r}")
        token = arguments.get("resumptionToken")
        if token is not None and verb.startswith("List"):
            if len(arguments) > 1:
                raise OaiError("badArgument", "No other parameters allowed with resumptionToken")
            asked, skip = _opened(token, verb, pages.expired)
        else:
            asked, skip = arguments, 0
            required, optional = _OFTEN[verb]
            if set(asked) - required - optional or required - set(asked):
                raise OaiError("badArgument", f"Invalid parameters provided for {verb}")
        shown = {"verb": verb, **arguments}
        inner = _inner(world, verb, asked, skip, moment, pages, server)
    except OaiError as error:
        inner = (
            f"<error code='{error.code}'>{_meaning(error.code)} Reason: {xml(str(error))}</error>"
        )
        shown = {} if error.code in {"badVerb", "badArgument"} else shown
    attributes = "".join(f' {name}="{xml(value)}"' for name, value in shown.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:schemaLocation="http://www.openarchives.org/OAI/2.0/ '
        'http://www.openarchives.org/OAI/2.0/OAI-PMH.xsd">\n'
        f"<responseDate>{iso(moment)}</responseDate>\n"
        f"<request{attributes}>{server}/oai</request>\n{inner}\n</OAI-PMH>\n"
    ).encode()


def _meaning(code: str) -> str:
    return {
        "badArgument": "The request includes illegal arguments or is missing required ones.",
        "badVerb": "The verb is no legal verb of OAI-PMH.",
        "badResumptionToken": "The value of the resumptionToken is invalid or expired.",
        "cannotDisseminateFormat": "The metadata format is not supported.",
        "idDoesNotExist": "The identifier is unknown or illegal here.",
        "noRecordsMatch": "The arguments give an empty list.",
    }.get(code, "")


def _inner(
    world: World,
    verb: str,
    asked: Mapping[str, str],
    skip: int,
    moment: datetime,
    pages: Pages,
    server: str,
) -> str:
    if verb == "Identify":
        return (
            f"<Identify><repositoryName>arXiv</repositoryName><baseURL>{server}/oai</baseURL>"
            "<protocolVersion>2.0</protocolVersion><adminEmail>help@arxiv.org</adminEmail>"
            f"<earliestDatestamp>{EARLIEST}</earliestDatestamp>"
            "<deletedRecord>persistent</deletedRecord><granularity>YYYY-MM-DD</granularity>"
            "</Identify>"
        )
    if verb == "ListMetadataFormats":
        formats = "".join(
            f"<metadataFormat><metadataPrefix>{name}</metadataPrefix><schema>{space}{name}.xsd"
            f"</schema><metadataNamespace>{space}</metadataNamespace></metadataFormat>"
            for name, space in FORMATS.items()
        )
        return f"<ListMetadataFormats>{formats}</ListMetadataFormats>"
    if verb == "ListSets":
        sets = "".join(
            f"<set><setSpec>{name}</setSpec><setName>{name}</setName></set>" for name in SETS
        )
        return f"<ListSets>{sets}</ListSets>"
    form = asked["metadataPrefix"]
    if form not in FORMATS:
        raise OaiError("cannotDisseminateFormat", f"Did not recognize requested format {form}")
    if verb == "GetRecord":
        key = asked["identifier"].removeprefix("oai:arXiv.org:")
        for state in world.states(moment):
            if state.paper.id == key:
                return f"<GetRecord>{_record(state, form)}</GetRecord>"
        raise OaiError("idDoesNotExist", f"Nothing found for {asked['identifier']}")
    states, since = _matching(world, asked, moment)
    whole = verb == "ListRecords"
    size = pages.records if whole else pages.headers
    page = list(states[skip : skip + size])
    if not page:
        raise OaiError("noRecordsMatch", "No records match the parameters")
    token = ""
    if skip + size < len(states):
        token = _token(verb, asked, states, skip + size, since, moment)
    elif skip:
        # The last of several pages has an empty token; a single page has none.
        token = "<resumptionToken/>"
    if pages.twice:
        page.insert(1, page[0])
    body = "".join(_record(state, form) if whole else _header(state) for state in page)
    return f"<{verb}>{body}{token}</{verb}>"


def _matching(
    world: World, asked: Mapping[str, str], moment: datetime
) -> tuple[Sequence[State], date | None]:
    since, until = _day(asked, "from"), _day(asked, "until")
    if since is not None and since < EARLIEST:
        raise OaiError("badArgument", f"from date too early: {since}")
    if until is not None and until > moment.astimezone(UTC).date() + timedelta(days=1):
        raise OaiError("badArgument", f"until date too late: {until}")
    if since is not None and until is not None and since > until:
        raise OaiError("badArgument", "from date is after until date")
    name = asked.get("set", "")
    if name and name not in SETS:
        raise OaiError("badArgument", f"Set does not exist: {name}")
    states = world.in_set(moment, name)
    if since is not None or until is not None:
        states = [
            state
            for state in states
            if (since is None or state.stamp >= since) and (until is None or state.stamp <= until)
        ]
    return states, since


def _day(asked: Mapping[str, str], name: str) -> date | None:
    text = asked.get(name)
    if text is None:
        return None
    try:
        if len(text) != 10:
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError as error:
        raise OaiError("badArgument", f"{name} date format must be YYYY-MM-DD") from error


def _token(
    verb: str,
    asked: Mapping[str, str],
    states: Sequence[State],
    end: int,
    since: date | None,
    moment: datetime,
) -> str:
    """Return a token as the server writes it: if a page spans days, from the last of them."""
    last = states[end - 1].stamp
    first = next(index for index, state in enumerate(states) if state.stamp == last)
    asked = {"verb": verb, **asked, "from": last.isoformat()} if first or since else dict(asked)
    asked = {"verb": verb, **asked}
    inner = quote(urlencode({**asked, "skip": end - first}))
    tomorrow = moment.astimezone(UTC).date() + timedelta(days=1)
    expires = iso(datetime.combine(tomorrow, time(), UTC))
    return f"<resumptionToken expirationDate='{expires}'>{inner}</resumptionToken>"


def _opened(token: str, verb: str, expired: bool) -> tuple[dict[str, str], int]:
    found = {name: values[0] for name, values in parse_qs(unquote(token)).items()}
    skip = found.pop("skip", "")
    if expired or not skip.isdigit() or found.pop("verb", "") != verb:
        raise OaiError("badResumptionToken", "Token decoding failed or format is invalid.")
    return found, int(skip)


def _header(state: State) -> str:
    sets = "".join(f"<setSpec>{name}</setSpec>" for name in state.sets)
    return (
        f"<header><identifier>oai:arXiv.org:{state.paper.id}</identifier>"
        f"<datestamp>{state.stamp}</datestamp>{sets}</header>"
    )


def _record(state: State, form: str) -> str:
    body = {"oai_dc": _dc, "arXiv": _plain, "arXivRaw": _raw}[form](state)
    return f"<record>{_header(state)}<metadata>{body}</metadata></record>\n"


def _element(name: str, text: str) -> str:
    return f"<{name}>{xml(text)}</{name}>" if text else ""


def _tail(state: State) -> str:
    event = state.event
    return (
        _element("journal-ref", event.journal_ref)
        + _element("doi", event.doi)
        + _element("license", event.licence)
        + _element("abstract", event.version.abstract)
    )


def _opening(form: str) -> str:
    space = FORMATS[form]
    return (
        f'<{form} xmlns="{space}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:schemaLocation="{space} http://arxiv.org/OAI/{form}.xsd">'
    )


def _raw(state: State) -> str:
    event, version = state.event, state.event.version
    versions = "".join(
        f'<version version="v{of.number}"><date>{of.submitted:%a, %d %b %Y %H:%M:%S} GMT</date>'
        f"<size>{of.number * 7}kb</size>{_element('source_type', of.source)}</version>"
        for of in state.paper.versions(event)
    )
    return (
        f"{_opening('arXivRaw')}<id>{state.paper.id}</id><submitter>Some Submitter</submitter>"
        f"{versions}<title>{xml(version.title)}</title>"
        f"<authors>{xml(', '.join(tex(name) for name in version.authors))}</authors>"
        f"<categories>{' '.join(event.categories)}</categories>"
        f"{_element('comments', version.comment)}{_tail(state)}</arXivRaw>"
    )


def _plain(state: State) -> str:
    event, version = state.event, state.event.version
    first = state.paper.first.submitted
    authors = "".join(_author(name) for name in version.authors)
    updated = f"{version.submitted:%Y-%m-%d}" if version.number > 1 else ""
    return (
        f"{_opening('arXiv')}<id>{state.paper.id}</id><created>{first:%Y-%m-%d}</created>"
        f"{_element('updated', updated)}<authors>{authors}</authors>"
        f"<title>{xml(version.title)}</title><categories>{' '.join(event.categories)}</categories>"
        f"{_element('comments', version.comment)}{_tail(state)}</arXiv>"
    )


def _author(name: str) -> str:
    forenames, _, keyname = name.rpartition(" ")
    return f"<author>{_element('keyname', keyname)}{_element('forenames', forenames)}</author>"


def _dc(state: State) -> str:
    version = state.event.version
    return (
        f'<oai_dc:dc xmlns:oai_dc="{FORMATS["oai_dc"]}" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>{xml(version.title)}</dc:title>{_all('dc:creator', version.authors)}"
        f"{_all('dc:subject', state.event.categories)}"
        f"{_element('dc:description', version.abstract)}"
        f"<dc:date>{state.paper.first.submitted:%Y-%m-%d}</dc:date><dc:type>text</dc:type>"
        f"<dc:identifier>http://arxiv.org/abs/{state.paper.id}</dc:identifier></oai_dc:dc>"
    )


def _all(name: str, texts: Iterable[str]) -> str:
    return "".join(_element(name, text) for text in texts)
