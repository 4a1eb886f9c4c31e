"""What a search finds: against a matcher that looks at every word, and against known papers."""

from __future__ import annotations

import random
import re
import unicodedata
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nltk.stem.snowball import SnowballStemmer

from etude.core.errors import PapersError
from etude.papers.search import Index
from etude.papers.search.text import order_key, plain, stems, words
from etude.papers.words import glued


@pytest.fixture(scope="module")
def some(corpus):
    """Every paper that could be about YOLO, and one in fifty of the others: some 1,800."""
    return [
        row
        for number, row in enumerate(corpus)
        if number % 50 == 0 or "yolo" in (row["title"] + row["abstract"]).lower()
    ]


@pytest.fixture(scope="module")
def index(some, make_library, tmp_path_factory):
    built = Index(tmp_path_factory.mktemp("index") / "papers", make_library(some))
    assert built.refresh() == len(some)
    return built


def every(index, text, **options):
    """All ids that a search finds, page by page."""
    ids: list[str] = []
    while True:
        found = index.search(text, most=97, offset=len(ids), **options)
        ids += found.ids
        if len(found.ids) < 97:
            assert not found.exact or found.total == len(ids)
            return ids


def newest_first(rows):
    return [
        row["id"]
        for row in sorted(rows, key=lambda row: (min(row["announced"]), row["id"]), reverse=True)
    ]


def test_yolo_finds_its_versions_and_kinds_newest_first(index, some):
    # Letters before or after a version make it another name; embryologists study no detector.
    family = re.compile(r"(?<![^\W_])yolo(?:v?\d+[a-z0-9]*|[a-z])?(?![^\W_])", re.IGNORECASE)
    for field in ("", "title:"):
        expected = [
            row
            for row in some
            if family.search(row["title"] if field else row["title"] + "\n" + row["abstract"])
        ]
        found = every(index, f"{field}YOLO")
        assert len(expected) > (150 if field else 580)
        assert {row["id"] for row in expected} <= set(found)
        # The rest are names like AnytimeYOLO, whose humps are words.
        more = [row for row in some if row["id"] in set(found) - {row["id"] for row in expected}]
        for row in more:
            assert re.search(
                r"[a-z]YOLO|Yolo[A-Z]|YOLO[A-Z][a-z]|YOLOv8", row["title"] + row["abstract"]
            )
        assert found == newest_first([row for row in some if row["id"] in set(found)])


def test_a_version_finds_only_itself(index, some):
    # The stemmer takes YOLOv8s, its small size, for a plural.
    exactly = re.compile(r"(?<![^\W_])yolo-?v8s?(?![^\W_])", re.IGNORECASE)
    expected = [row for row in some if exactly.search(row["title"] + "\n" + row["abstract"])]
    assert len(expected) > 100
    assert every(index, "yolov8") == newest_first(expected)


def test_the_words_of_a_title_find_its_paper(index, some):
    chosen = random.Random(0).sample(some, 200)
    hits = 0
    for row in chosen:
        typed = " ".join(re.findall(r"[\w-]+", plain(row["title"])))
        hits += row["id"] in index.search(typed, order="relevance", most=3).ids
    assert hits >= 190


def test_a_pasted_title_finds_its_paper(index, some):
    hits = 0
    chosen = random.Random(1).sample(some, 200)
    for row in chosen:
        if row["title"].count("(") != row["title"].count(")") or row["title"].count('"') % 2:
            hits += 1  # those are refused with their place, see the queries' tests
            continue
        title = " ".join(row["title"].split())
        hits += row["id"] in index.search(title, order="relevance", most=3).ids
    assert hits >= 190


# The brute-force matcher


def split(text):
    """Words of a text, by other means than the engine's: Unicode's decomposition and a pattern."""
    text = unicodedata.normalize("NFKD", plain(text).lower())
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return [word for word in re.findall(r"[^\W_]+", text) if len(word.encode()) <= 40]


class BruteForce:
    """Looks at every word of every paper."""

    def __init__(self, rows):
        self.rows = rows
        self.values = {}
        self.title_words = set()
        self.stem_of = {}
        for row in rows:
            of = {}
            for field in ("title", "abstract"):
                text = plain(row[field])
                values = [text, *(" ".join(pieces) for pieces in glued(text))]
                of[field] = [[self.stem(word) for word in split(value)] for value in values]
                if field == "title":
                    self.title_words |= {word for value in values for word in split(value)}
            of["author"] = {word for author in row["authors"] for word in split(author)}
            self.values[row["id"]] = of

    def stem(self, word):
        if word not in self.stem_of:
            self.stem_of[word] = stems(word)[0]
        return self.stem_of[word]

    def matches(self, row, query):
        kind, *rest = query
        of = self.values[row["id"]]
        if kind == "and":
            return all(self.matches(row, one) for one in rest[0])
        if kind == "or":
            return any(self.matches(row, one) for one in rest[0])
        if kind == "not":
            return not self.matches(row, rest[0])
        if kind == "cat":
            return any(
                c.lower() == rest[0] or c.lower().split(".")[0] == rest[0]
                for c in row["categories"]
            )
        if kind == "days":
            return rest[0] <= min(row["announced"]) <= rest[1]
        field, text = rest
        fields = ("title", "abstract", "author") if field is None else (field,)
        typed = split(text)
        for one in fields:
            if one == "author":
                if kind == "prefix" and any(word.startswith(typed[0]) for word in of["author"]):
                    return True
                if kind == "word" and typed[0] in of["author"]:
                    return True
                continue
            wanted = [self.stem(word) for word in typed]
            for value in of[one]:
                if kind == "prefix":
                    begun = {self.stem(w) for w in self.title_words if w.startswith(typed[0])}
                    if any(stem.startswith(typed[0]) or stem in begun for stem in value):
                        return True
                elif any(
                    value[at : at + len(wanted)] == wanted
                    for at in range(len(value) - len(wanted) + 1)
                ):
                    return True
        return False


def written(query):
    """A query of the generator in the language."""
    kind, *rest = query
    if kind == "and":
        return "(" + " ".join(map(written, rest[0])) + ")"
    if kind == "or":
        return "(" + " OR ".join(map(written, rest[0])) + ")"
    if kind == "not":
        return "NOT " + written(rest[0])
    if kind == "cat":
        return f"cat:{rest[0]}"
    if kind == "days":
        return f"{rest[0]}..{rest[1]}"
    field, text = rest
    before = f"{field}:" if field else ""
    return before + {"word": text, "phrase": f'"{text}"', "prefix": f"{text}*"}[kind]


@pytest.fixture(scope="module")
def few(corpus, make_library, tmp_path_factory):
    """300 papers, their index, the matcher, and queries to draw from."""
    rows = corpus[::201]
    built = Index(tmp_path_factory.mktemp("few") / "papers", make_library(rows))
    built.refresh()
    brute = BruteForce(rows)
    chosen = random.Random(5)
    vocabulary = sorted(
        {
            word
            for row in rows
            for word in split(row["title"])
            if len(word) > 2 and word not in {"and", "not"}
        }
    )
    phrases = []
    for row in rows:
        typed = split(row[chosen.choice(["title", "abstract"])])
        at = chosen.randrange(max(1, len(typed) - 3))
        phrases.append(" ".join(typed[at : at + chosen.choice([2, 2, 3])]))
    # Two words that stand beside each other nowhere, too.
    phrases += [" ".join(chosen.sample(vocabulary, 2)) for _ in range(50)]
    fields = st.sampled_from([None, None, "title", "abstract"])
    names = sorted({w for row in rows for a in row["authors"] for w in split(a) if len(w) > 2})
    leaves = st.one_of(
        st.tuples(st.just("word"), fields, st.sampled_from(vocabulary)),
        st.tuples(st.just("word"), st.just("author"), st.sampled_from(names)),
        st.tuples(st.just("phrase"), fields.filter(bool), st.sampled_from(phrases)),
        st.tuples(
            st.just("prefix"), fields, st.sampled_from([w[:4] for w in vocabulary if w.isalpha()])
        ),
        st.tuples(st.just("cat"), st.sampled_from(["cs.cv", "cs.cl", "cs", "stat", "eess.iv"])),
        st.tuples(
            st.just("days"),
            st.sampled_from(["2025-03-01", "2025-08-15"]),
            st.sampled_from(["2025-12-31", "2026-02-02"]),
        ),
    )
    queries = st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(st.just("and"), st.lists(inner, min_size=2, max_size=4)),
            st.tuples(st.just("or"), st.lists(inner, min_size=2, max_size=4)),
            st.tuples(st.just("not"), inner),
        ),
        max_leaves=8,
    )
    return rows, built, brute, queries


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_query_finds_what_a_look_at_every_word_finds(few, data):
    rows, built, brute, queries = few
    query = data.draw(queries)
    expected = newest_first([row for row in rows if brute.matches(row, query)])
    text = written(query)
    found = built.search(text, most=1000)
    assert found.ids == expected, text
    assert found.exact
    assert found.total == len(expected)
    by_relevance = built.search(text, order="relevance", most=1000)
    assert sorted(by_relevance.ids) == sorted(expected)
    assert by_relevance.total == len(expected)


def test_the_engines_stems_are_snowballs(corpus):
    # Snowball's rules changed after NLTK's edition of them, for some words in -ize and -ology.
    theirs = SnowballStemmer("english")
    seen = {word for row in corpus[::100] for word in split(row["abstract"]) if word.isascii()}
    same = sum(stems(word) == [theirs.stem(word)] for word in seen)
    assert same > 0.99 * len(seen)
    assert stems("segmenting") == stems("segmentation")


# One paper each for what is written in several ways


@pytest.fixture(scope="module")
def odd(make_library, corpus, tmp_path_factory):
    """Papers with titles that trip splitters, by number."""
    titles = [
        r"$\beta$-VAE and friends",
        "A β-VAE again",
        r"Sparsity by $L_0$ norms",
        "L₀ regularisation",
        "From C to C++ code",
        "Plain C programs",
        "3D boxes",
        "A 3-D reconstruction",
        "GPT-4 as a judge",
        "We ask GPT4 and GPT-4o",
        "GPT and 4 others",
        "FlashAttention2 kernels",
        "<script>alert('x')</script>",
        "0",
        "$O(n^2)$ attention in \\textbf{bold}",
        "Fr\\'echet distances",
        "Fréchet means",
        "日本語 の 論文",
    ]
    rows = [
        {
            **corpus[0],
            "id": f"2601.{number:05}",
            "title": title,
            "abstract": "Nothing else.",
            "authors": ["Yann LeCun"],
        }
        for number, title in enumerate(titles)
    ]
    built = Index(tmp_path_factory.mktemp("odd") / "papers", make_library(rows))
    built.refresh()
    return built


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("β-VAE", [0, 1]),
        ("beta-vae", [0, 1]),
        (r"\beta", [0, 1]),
        ("L_0", [2, 3]),
        ("$L_0$", [2, 3]),
        ("l0", [2, 3]),
        ("C++", [4]),
        ("title:c", [4, 5]),
        ("3D", [6, 7]),
        ("3-d", [6, 7]),
        ("GPT-4", [8, 9]),
        ("gpt4", [8, 9]),
        ("GPT", [8, 9, 10]),
        ("GPT-4o", [9]),
        ('"flash attention"', [11]),
        ("flashattention2", [11]),
        ("flashattention", [11]),
        ("<script>", [12]),
        ("title:0", [13]),
        ("bold", [14]),
        ("frechet", [15, 16]),
        ("Fréchet", [15, 16]),
        ("論文", [17]),
    ],
)
def test_what_is_written_in_several_ways_is_found_by_each(odd, query, expected):
    assert sorted(odd.search(query).ids) == [f"2601.{number:05}" for number in expected]


@pytest.mark.parametrize(
    ("signed", "found_by", "not_by"),
    [
        (
            "Yann LeCun",
            'LeCun;"Y. LeCun";"Yann LeCun";Y. LeCun;lecun;"LeCun, Yann";Yann;LeC*',
            'Le;"X. LeCun"',
        ),
        ("Y. LeCun", 'LeCun;"Y. LeCun";"Yann LeCun"', '"Xavier LeCun"'),
        ("Yann A. LeCun", '"Yann LeCun";"Y. A. LeCun";"Yann A. LeCun";"Y. LeCun"', '"A. Yann"'),
        (
            "Laurens van der Maaten",
            '"van der Maaten";"L. van der Maaten";maaten;"L. Maaten"',
            '"van Maaten"',
        ),
        ("Jürgen Schmidhuber", '"Jurgen Schmidhuber";SCHMIDHUBER;Jürgen', "Schmid"),
        (r"Bernhard Sch\"olkopf", 'Schölkopf;Scholkopf;"B. Schölkopf"', "Sch"),
        ("Łukasz Kaiser", '"Lukasz Kaiser";"L. Kaiser"', "Lu"),
        ("Jean-Luc Godard", '"Jean-Luc Godard";"J.-L. Godard";"J. Godard"', '"Luc Jean"'),
    ],
)
def test_an_author_is_found_however_the_name_is_written(
    tmp_path, make_library, corpus, signed, found_by, not_by
):
    others = {**corpus[1], "authors": ["Jan Maria", "Le Cun Yang"], "id": "2601.00002"}
    rows = [{**corpus[0], "authors": ["Ada Lovelace", signed], "id": "2601.00001"}, others]
    built = Index(tmp_path / "papers", make_library(rows))
    built.refresh()
    for name in found_by.split(";"):
        assert "2601.00001" in built.search(f"author:{name}").ids, name
    for name in not_by.split(";"):
        assert "2601.00001" not in built.search(f"author:{name}").ids, name


def test_three_thousand_authors_are_all_found(tmp_path, make_library, corpus):
    names = [f"Given{number} Family{number}" for number in range(3303)]
    built = Index(tmp_path / "papers", make_library([{**corpus[0], "authors": names}]))
    built.refresh()
    assert built.search('author:"G. Family3302"').total == 1
    assert built.search("family17").total == 1


# Filters, order, paging


def test_filters_of_the_call_join_those_of_the_query(index, some):
    expected = newest_first(
        [
            row
            for row in some
            if "2026-01-01" <= min(row["announced"]) <= "2026-02-28"
            and {"cs.CL", "cs.RO"} & set(row["categories"])
        ]
    )
    found = index.search(
        "", since="2026-01", until="2026-02", categories=["cs.CL", "cs.RO"], most=1000
    )
    assert found.ids == expected
    days = {"since": date(2026, 1, 1), "until": date(2026, 2, 28)}
    assert index.search("(cat:cs.CL OR cat:cs.RO)", **days, most=1000).ids == expected
    assert "cs.CL" in found.explain
    assert index.search("", categories=[]).ids == []


def test_an_id_or_address_finds_its_paper(index, some):
    key = some[7]["id"]
    for text in (key, f"arXiv:{key}v3", f"https://arxiv.org/abs/{key}", f"id:{key}"):
        assert index.search(text).ids == [key]


def test_pages_neither_repeat_nor_lose_a_paper(index):
    for order in ("newest", "relevance"):
        whole = index.search("detection", order=order, most=500)
        pages = [
            index.search("detection", order=order, most=7, offset=at).ids for at in range(0, 500, 7)
        ]
        assert [key for page in pages for key in page][:500] == whole.ids
        assert len(set(whole.ids)) == len(whole.ids)


def test_of_equally_relevant_papers_the_newest_comes_first(tmp_path, make_library, corpus):
    rows = [
        {**corpus[0], "id": f"2601.{number:05}", "announced": [f"2026-01-{day:02}"]}
        for number, day in enumerate(random.Random(2).sample(range(1, 29), 28))
    ]
    built = Index(tmp_path / "papers", make_library(rows))
    built.refresh()
    word = plain(corpus[0]["title"]).split()[0]
    for most in (5, 28):
        assert built.search(word, order="relevance", most=most).ids == newest_first(rows)[:most]


def test_a_title_counts_more_than_an_abstract(tmp_path, make_library, corpus):
    filler = " ".join(["plain words of an abstract"] * 8)
    rows = [
        {**corpus[0], "id": "2601.00001", "title": "A quixotic title", "abstract": filler},
        {
            **corpus[0],
            "id": "2601.00002",
            "title": "Another title",
            "abstract": f"{filler} quixotic",
        },
    ]
    built = Index(tmp_path / "papers", make_library(rows))
    built.refresh()
    assert built.search("quixotic", order="relevance").ids[0] == "2601.00001"
    assert built.search("quixotic").ids[0] == "2601.00002"


def test_windows_give_the_same_first_page_as_a_full_look(index, monkeypatch):
    # With few papers no query is dear enough for windows: make every query so.
    whole = {
        text: every(index, text)
        for text in ("the", "detection", "the -of", "image OR model", "the cat:cs.CL")
    }
    monkeypatch.setattr("etude.papers.search.pages.COUNTED", 0)
    for text, ids in whole.items():
        for offset in (0, 13):
            found = index.search(text, most=10, offset=offset)
            assert found.ids == ids[offset : offset + 10]
            assert found.total == len(ids) if found.exact else found.total <= len(ids)
    assert not index.search("the", most=10).exact
    assert index.search("the", most=10).counted().startswith("at least")


def test_a_changed_paper_is_found_by_its_new_words_only(tmp_path, make_library, corpus, sighting):
    library = make_library(corpus[:50])
    built = Index(tmp_path / "papers", library)
    built.refresh()
    assert built.refresh() == 0
    row = corpus[10]
    library.put([replace(sighting(row), title="A zygomorphic title", abstract="Anew.", version=9)])
    old = plain(row["title"]).split()[0]
    assert row["id"] in built.search(f'title:"{old}"').ids
    assert built.refresh() == 1
    assert row["id"] not in built.search(f'title:"{old}"').ids
    assert built.search("zygomorphic").ids == [row["id"]]
    assert built.count() == 50
    assert built.search("").total == 50


def test_a_search_before_the_first_refresh_finds_nothing_and_says_why(tmp_path):
    found = Index(tmp_path / "none").search("yolo")
    assert (found.ids, found.total) == ([], 0)
    assert "nothing is indexed" in found.explain
    with pytest.raises(PapersError, match="without its database"):
        Index(tmp_path / "none").refresh()


# Suggestions


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("difusion", "diffusion"),
        ("segmantation", "segmentation"),
        ("dtection yolo", "detection yolo"),
        ("etection", "detection"),
        ("edtection", "detection"),
        ("qetection", "detection"),
        ("title:detction -zzzz", "title:detection -zzzz"),
    ],
)
def test_a_misspelt_word_is_answered_by_one_that_the_index_knows(index, typed, meant):
    found = index.search(typed)
    assert found.suggestions[0] == meant
    assert index.search(found.suggestions[0]).total > found.total


def test_what_is_found_often_or_like_nothing_gets_no_suggestion(index):
    assert index.search("detection").suggestions == ()
    assert index.search("qqxyzzyqq").suggestions == ()


# Keys


def test_archives_of_one_number_differ_in_order():
    archives = [
        "acc-phys", "adap-org", "alg-geom", "ao-sci", "astro-ph", "atom-ph",
        "bayes-an", "chao-dyn", "chem-ph", "cmp-lg", "comp-gas", "cond-mat",
        "cs", "dg-ga", "funct-an", "gr-qc", "hep-ex", "hep-lat",
        "hep-ph", "hep-th", "math", "math-ph", "mtrl-th", "nlin",
        "nucl-ex", "nucl-th", "patt-sol", "physics", "plasm-ph", "q-alg",
        "q-bio", "quant-ph", "solv-int", "supr-con",
    ]  # fmt: skip
    keys = {order_key("2026-01-01", f"{archive}/0501001") for archive in archives}
    assert len(keys) == len(archives)


@given(st.lists(st.tuples(st.dates(), st.integers(1, 99_999)), min_size=2, max_size=2))
def test_order_follows_the_day_then_the_id(pair):
    names = [(day.isoformat(), f"2601.{number:05}") for day, number in pair]
    keys = [order_key(*name) for name in names]
    assert (keys[0] < keys[1]) == (names[0] < names[1])
    assert all(0 < key < 1 << 63 for key in keys)


def test_words_and_stems_split_alike():
    assert words("Ünïcode_and-more 3x") == ["unicode", "and", "more", "3x"]
