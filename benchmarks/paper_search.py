"""How does search over papers scale from 10,000 to 1,000,000, and which engine should it have?

    python benchmarks/paper_search.py [--sizes 10000 100000 1000000] [--quick] [--json FILE]
                                      [--svg FILE] [--peer-sizes ...]

Papers are the real ones of `$ETUDE_DATA/papers` (or `shared/data/papers` beside the repository),
then ones recombined from them: sentences of abstracts at their place, titles joined at the colon,
first and last names, so that words, phrases and lengths keep their statistics. They stand in for
a database and go through `Index.refresh`, as papers do. Then a mix of twelve kinds of queries is
asked in both orders, by a process that does nothing else: percentiles of its times, and its
memory. SQLite's FTS5 answers the same mix in the same session. Each query is asked three times,
the first time included: nothing is warmed but by the queries before it. About an hour with
1,000,000; `--quick` (10,000 and 50,000) three minutes. Needs 3 GB of disk below `--work`, which
is emptied at the end.
"""

from __future__ import annotations

import argparse
import calendar
import json
import lzma
import os
import random
import re
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from etude.papers.search import Index
from etude.papers.search.text import joined, plain, words
from etude.papers.words import glued

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = 20
REPEATS = 3
GOALS = {"newest": 20.0, "relevance": 100.0, "disk": 700.0, "memory": 500.0}
"""At 1,000,000: p95 in ms, p95 in ms, MB, MB of resident memory."""


def corpus(limit: int | None = None) -> list[dict[str, Any]]:
    """The real papers, oldest first, the first day of each as `announced`."""
    folder = Path(os.environ.get("ETUDE_DATA", REPOSITORY.parent / "shared" / "data"))
    file = folder / "papers" / "corpus.jsonl.xz"
    if not file.is_file():
        raise SystemExit(f"no papers at {file}: set ETUDE_DATA")
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        row["announced"] = min(row["announced"])
    rows.sort(key=lambda row: (row["announced"], row["id"]))
    return rows[-limit:] if limit else rows


class Recombined:
    """What `Index` asks of a library, over papers that are made as they are asked for.

    The newest ones are the real ones; before them, some 400 recombined ones a day. One in ten
    comes at a random time, as in a harvest by date of change.
    """

    def __init__(self, count: int) -> None:
        self.real = corpus(min(count, 60_419))
        self.size = count
        self.marks: dict[str, Any] = {"revision": count + 1}
        self.sentences: list[list[str]] = [[] for _ in range(12)]
        self.lengths: list[int] = []
        for row in self.real:
            found = re.split(r"(?<=[.!?])\s+(?=[A-Z])", row["abstract"].replace("\n", " "))
            self.lengths.append(len(found))
            for place, sentence in enumerate(found):
                self.sentences[min(11, place)].append(sentence)
        self.titles = [row["title"].replace("\n", " ") for row in self.real]
        self.heads = [title.split(": ", 1) for title in self.titles if ": " in title]
        self.order = list(range(count))
        chosen = random.Random(7)
        late = chosen.sample(range(count), count // 10)
        moved = late[:]
        chosen.shuffle(moved)
        for place, other in zip(late, moved, strict=True):
            self.order[place] = other
        self.first_day = date.fromisoformat(self.real[0]["announced"])
        self.invented = count - len(self.real)

    def mark(self, key: str) -> Any:
        """A small fact kept by `set_mark`, or None."""
        return self.marks.get(key)

    def set_mark(self, key: str, value: Any) -> None:
        """Keep a small fact."""
        self.marks[key] = value

    def count(self) -> int:
        """How many papers there are."""
        return self.size

    def since(self, revision: int) -> Iterator[list[dict[str, Any]]]:
        """Papers after a revision, in pages; each is a revision of its own."""
        page: list[dict[str, Any]] = []
        for place in range(max(0, revision - 1), self.size):
            page.append(self.row(self.order[place]) | {"revision": place + 2})
            if len(page) == 2000:
                yield page
                page = []
        if page:
            yield page

    def row(self, number: int) -> dict[str, Any]:
        """The paper of this place in time; the same at every call."""
        if number >= self.invented:
            return self.real[number - self.invented]
        chosen = random.Random(number)
        pick = chosen.choice
        first, second = pick(self.heads), pick(self.heads)
        title = f"{first[0]}: {second[1]}" if chosen.random() < 0.55 else pick(self.titles)
        places = range(pick(self.lengths))
        abstract = " ".join(pick(self.sentences[min(11, place)]) for place in places)
        given, last = pick(self.real)["authors"], pick(self.real)["authors"]
        authors = [
            f"{one.rpartition(' ')[0] or 'A.'} {pick(last).rpartition(' ')[2]}" for one in given
        ]
        day = self.first_day - timedelta(days=1 + (self.invented - number) // 400)
        return {
            "id": f"{day:%y%m}.{number % 12_000 + 1:05}",
            "title": title,
            "abstract": abstract,
            "authors": authors,
            "categories": pick(self.real)["categories"],
            "announced": day.isoformat(),
        }

    def bytes_of_text(self) -> int:
        """Of titles, abstracts and authors, told from a sample of 2,000."""
        chosen = random.Random(3).sample(range(self.size), min(self.size, 2000))
        rows = [self.row(one) for one in chosen]
        size = sum(
            len(row["title"]) + len(row["abstract"]) + sum(map(len, row["authors"])) for row in rows
        )
        return size * self.size // len(rows)


# The mix of queries, each in both languages


def mix(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Queries of twelve kinds, made from the real papers' own words."""
    counts: Counter[str] = Counter()
    sample = rows[:: max(1, len(rows) // 20_000)]
    for row in sample:
        counts.update(set(words(plain(row["title"] + " " + row["abstract"]))))
    share = {word: count / len(sample) for word, count in counts.items() if word.isalpha()}
    chosen = random.Random(11)

    def between(low: float, high: float) -> list[str]:
        return sorted(w for w, s in share.items() if low <= s < high and len(w) > 3)

    rare, middle = between(0.0002, 0.001), between(0.01, 0.1)
    common = between(0.25, 1.1)
    titles = [words(plain(row["title"])) for row in sample if row["title"].isascii()]
    titles = [
        title for title in titles if len(title) > 5 and all(map(str.isalpha, title)) and set(title)
    ]
    months = ["2025-06", "2025-11", "2026-02", "2026-04"]
    authors = [
        row["authors"][0] for row in sample if re.fullmatch(r"[A-Za-z ]+", row["authors"][0])
    ]
    found: list[dict[str, Any]] = []

    def add(kind: str, etude: str, fts: str, **more: Any) -> None:
        found.append({"kind": kind, "etude": etude, "fts": fts, **more})

    for _ in range(12):
        word = chosen.choice(rare)
        add("rare word", word, f'"{word}"')
        word = chosen.choice(common)
        add("common word", word, f'"{word}"')
        title = chosen.choice(titles)
        at = chosen.randrange(len(title) - 1)
        phrase = " ".join(title[at : at + 2])
        add("phrase", f'"{phrase}"', f'"{phrase}"')
        three = chosen.sample(chosen.choice(titles), 3)
        add("3-term AND", " ".join(three), " AND ".join(f'"{w}"' for w in three))
        eight = chosen.sample(middle, 8)
        add("8-term OR", " OR ".join(eight), " OR ".join(f'"{w}"' for w in eight))
        start = chosen.choice(middle)[:5]
        add("prefix", f"{start}*", f'"{start}"*')
        word = chosen.choice(middle)
        add("field", f"title:{word}", f'title:"{word}"')
        author = chosen.choice(authors)
        add("author", f'author:"{author}"', f'author:"{author.lower()}"')
        word, month = chosen.choice(common), chosen.choice(months)
        last = calendar.monthrange(int(month[:4]), int(month[5:]))[1]
        days = (f"{month}-01", f"{month}-{last}")
        add("date filter", f"{word} date:{month}", f'"{word}"', days=days)
        word, other = chosen.choice(common), chosen.choice(common)
        add("exclusion", f"{word} -{other}", f'"{word}" NOT "{other}"')
        add("category", f"{chosen.choice(common)} cat:cs.CL", f'"{word}" AND cat:"cscl"')
    found += [{"kind": "yolo", "etude": "yolo", "fts": '"yolo"'} for _ in range(3)]
    phrase = "large language model"
    found.append({"kind": "3-term AND", "etude": phrase, "fts": phrase})
    sota = '"state of the art"'
    found.append({"kind": "phrase", "etude": sota, "fts": sota})
    return found


# SQLite's FTS5, the other candidate


class Peer:
    """A compact FTS5 index: contentless, row ids in order of time, Porter's stems."""

    def __init__(self, file: Path) -> None:
        self.base = sqlite3.connect(file)
        self.base.execute("PRAGMA journal_mode=WAL")
        self.base.execute("PRAGMA mmap_size=2000000000")
        days = self.base.execute("SELECT name FROM sqlite_master WHERE name='days'").fetchone()
        self.days: list[str] = []
        if days:
            rows = self.base.execute("SELECT day FROM days ORDER BY row")
            self.days = [row[0] for row in rows]

    def build(self, library: Recombined) -> None:
        """Index every paper, in order of time."""
        self.base.execute(
            "CREATE VIRTUAL TABLE papers USING fts5(title, abstract, author, cat, content='', "
            "tokenize='porter unicode61 remove_diacritics 2')"
        )
        self.base.execute("CREATE TABLE days (row INTEGER PRIMARY KEY, day TEXT)")
        for start in range(0, library.size, 5000):
            lines: list[tuple[Any, ...]] = []
            for number in range(start, min(library.size, start + 5000)):
                row = library.row(number)
                texts: list[str] = []
                for text in (plain(row["title"]), plain(row["abstract"])):
                    more = [" ".join(pieces) for pieces in glued(text)]
                    texts.append(" . ".join([text, *more, *joined(text)]))
                cats = " ".join(one.replace(".", "").lower() for one in row["categories"])
                lines.append((number + 1, *texts, ", ".join(row["authors"]), cats))
                self.base.execute("INSERT INTO days VALUES (?, ?)", (number + 1, row["announced"]))
            self.base.executemany(
                "INSERT INTO papers(rowid, title, abstract, author, cat) VALUES (?,?,?,?,?)", lines
            )
            self.base.commit()
        self.base.execute("INSERT INTO papers(papers) VALUES ('optimize')")
        self.base.commit()
        self.base.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def search(self, query: dict[str, Any], order: str) -> int:
        """Ask one query; how many rows came."""
        where, values = "papers MATCH ?", [query["fts"]]
        if "days" in query:
            low = bisect_right(self.days, query["days"][0]) + 1
            high = bisect_right(self.days, query["days"][1])
            where += " AND rowid BETWEEN ? AND ?"
            values += [low, high]
        by = "rowid DESC" if order == "newest" else "bm25(papers, 2.0, 1.0, 1.0, 0.0)"
        found = self.base.execute(
            f"SELECT rowid FROM papers WHERE {where} ORDER BY {by} LIMIT {PAGE}", values
        )
        return len(found.fetchall())


# Measuring: this file again, as a process that does nothing else


def answer(side: str, place: Path, queries: Path) -> None:
    """Ask every query of the file and print times in ms, and memory, as JSON."""
    asked = json.loads(queries.read_text("utf-8"))
    began = time.perf_counter()
    if side == "etude":
        index = Index(place)
        index.count()
    else:
        peer = Peer(place)
    opened = time.perf_counter() - began
    times: list[tuple[str, str, float, float]] = []
    totals: dict[str, str] = {}
    for _ in range(REPEATS):
        for order in ("newest", "relevance"):
            for query in asked:
                began, cpu = time.perf_counter(), time.process_time()
                if side == "etude":
                    found = index.search(query["etude"], order=order, most=PAGE)
                    totals[query["etude"]] = found.counted()
                else:
                    peer.search(query, order)
                took = (time.perf_counter() - began) * 1e3
                times.append((order, query["kind"], took, (time.process_time() - cpu) * 1e3))
    memory = {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            name, _, value = line.partition(":")
            if name in {"VmRSS", "RssAnon", "RssFile"}:
                memory[name] = int(value.split()[0]) * 1024
    print(json.dumps({"opened": opened, "times": times, "memory": memory, "totals": totals}))


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of `values` are, without interpolation."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def ask(side: str, place: Path, queries: Path) -> dict[str, Any]:
    """Percentiles of each kind and order, and of all together."""
    command = [sys.executable, __file__, "--answer", side, str(place), str(queries)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    raw = json.loads(done.stdout)
    table: dict[str, Any] = {}
    for order in ("newest", "relevance"):
        of: dict[str, list[float]] = {"all": [], "all, of processor": []}
        for by, kind, took, cpu in raw["times"]:
            if by == order:
                of["all"].append(took)
                # On a machine with other work, waiting for a core is not the engine's.
                of["all, of processor"].append(cpu)
                of.setdefault(kind, []).append(took)
        table[order] = {
            kind: {
                "p50": statistics.median(took),
                "p95": percentile(took, 0.95),
                "most": max(took),
            }
            for kind, took in of.items()
        }
    return {"opened_s": raw["opened"], "memory": raw["memory"], "ms": table}


def size_of(place: Path) -> int:
    """Bytes below a folder, or of a file."""
    if place.is_file():
        return place.stat().st_size
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())


def measure(count: int, work: Path, *, peer: bool, keep: bool, queries: Path) -> dict[str, Any]:
    """Build and ask both sides with `count` papers; each index goes once it was asked."""
    library: Any = Recombined(count)
    record: dict[str, Any] = {"papers": count, "text_bytes": library.bytes_of_text()}
    place = work / f"etude-{count}"
    began, cpu = time.perf_counter(), time.process_time()
    for start in range(0, min(count, 20_000)):
        library.row(start)
    making = (time.perf_counter() - began) / min(count, 20_000)
    began, cpu = time.perf_counter(), time.process_time()
    Index(place, library).refresh(
        lambda progress: print(
            f"\r{progress.done:>12,} of {count:,} in {time.perf_counter() - began:,.0f} s",
            end="",
            file=sys.stderr,
            flush=True,
        )
    )
    print(file=sys.stderr)
    took = time.perf_counter() - began
    record["etude"] = {
        "build_s": took,
        "papers_per_s": count / max(1e-9, took - making * count),
        "cpu_s": time.process_time() - cpu,
        "bytes": size_of(place / "index"),
        **ask("etude", place, queries),
    }
    if not keep:
        shutil.rmtree(place)
    if peer:
        file = work / f"fts5-{count}.sqlite3"
        began = time.perf_counter()
        Peer(file).build(library)
        took = time.perf_counter() - began
        record["fts5"] = {
            "build_s": took,
            "papers_per_s": count / max(1e-9, took - making * count),
            "bytes": size_of(file),
            **ask("fts5", file, queries),
        }
        if not keep:
            file.unlink()
    return record


def tell(record: dict[str, Any]) -> None:
    """Print one size."""
    print(f"\n{record['papers']:,} papers, {record['text_bytes'] / 1e6:,.0f} MB of text")
    for side in ("etude", "fts5"):
        if side not in record:
            continue
        of = record[side]
        memory = of["memory"]
        print(
            f"  {side}: {of['papers_per_s']:,.0f} papers/s in {of['build_s']:,.0f} s, "
            f"{of['bytes'] / 1e6:,.0f} MB on disk, opened in {of['opened_s'] * 1e3:,.0f} ms, "
            f"memory {memory.get('VmRSS', memory['peak']) / 1e6:,.0f} MB "
            f"({memory.get('RssAnon', 0) / 1e6:,.0f} of its own)"
        )
    print(f"  {'ms: p50 / p95':<18}", end="")
    sides = [side for side in ("etude", "fts5") if side in record]
    heads = [f"{side} {order}" for order in ("newest", "relevance") for side in sides]
    print("".join(f"{head:>20}" for head in heads))
    for kind in record["etude"]["ms"]["newest"]:
        cells = [
            "{p50:.1f} / {p95:.1f}".format(**record[side]["ms"][order][kind])
            for order in ("newest", "relevance")
            for side in sides
        ]
        print(f"  {kind:<18}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


def plot(records: list[dict[str, Any]]) -> str:
    """Draw p95 of both orders and sides over the number of papers, both axes in powers of ten."""
    width, height, left, bottom = 760, 420, 70, 360
    low, high = 0.1, 10_000.0

    def place(papers: float, ms: float) -> tuple[float, float]:
        import math

        x = left + (math.log10(papers) - 4) / 2 * (width - left - 190)
        share = (math.log10(max(low, ms)) - math.log10(low)) / math.log10(high / low)
        return x, bottom - share * (bottom - 30)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        '<text x="70" y="20">95 % of searches take at most (ms)</text>',
    ]
    for power in range(-1, 5):
        y = place(10_000, 10.0**power)[1]
        parts.append(f'<line x1="{left}" x2="570" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
        )
    for papers in (10_000, 100_000, 1_000_000):
        x = place(papers, 1)[0]
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{papers:,}</text>')
    parts.append(f'<text x="320" y="{bottom + 42}" text-anchor="middle">papers</text>')
    lines = [
        ("etude", "newest", "#2f7d5b", ""),
        ("etude", "relevance", "#2a5d9f", ""),
        ("fts5", "newest", "#2f7d5b", "6 4"),
        ("fts5", "relevance", "#2a5d9f", "6 4"),
    ]
    taken: list[float] = []
    for side, order, color, dashes in lines:
        points = [
            place(one["papers"], one[side]["ms"][order]["all"]["p95"])
            for one in records
            if side in one
        ]
        if not points:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2" '
            f'stroke-dasharray="{dashes}"/>'
        )
        x, y = points[-1]
        while any(abs(y - other) < 15 for other in taken):
            y += 15
        taken.append(y)
        name = "tantivy (Etude's)" if side == "etude" else "FTS5"
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="{color}">{name}, {order}</text>')
    return "\n".join([*parts, "</svg>\n"])


def goals(record: dict[str, Any]) -> None:
    """Print what was reached of what is asked for at 1,000,000."""
    of = record["etude"]
    memory = of["memory"]
    reached = {
        "newest": of["ms"]["newest"]["all"]["p95"],
        "relevance": of["ms"]["relevance"]["all"]["p95"],
        "disk": of["bytes"] / 1e6,
        "memory": memory.get("VmRSS", memory["peak"]) / 1e6,
    }
    print(f"\nGoals are for 1,000,000 papers; here {record['papers']:,}")
    for name, unit in (("newest", "ms"), ("relevance", "ms"), ("disk", "MB"), ("memory", "MB")):
        met = "met" if reached[name] <= GOALS[name] else "missed"
        print(f"  {name:<12}{reached[name]:>8,.1f} {unit}   goal <= {GOALS[name]:g}   {met}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--peer-sizes", type=int, nargs="*", help="sizes of FTS5; all by default")
    parser.add_argument("--quick", action="store_true", help="10,000 and 50,000 papers")
    parser.add_argument("--work", type=Path, help="folder for the indexes; a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave the indexes there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the cost curve here")
    parser.add_argument("--answer", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        side, place, queries = options.answer
        answer(side, Path(place), Path(queries))
        return
    sizes = [10_000, 50_000] if options.quick else options.sizes
    peers = sizes if options.peer_sizes is None else options.peer_sizes
    records: list[dict[str, Any]] = []
    work = Path(tempfile.mkdtemp(prefix="paper-search-", dir=options.work))
    try:
        queries = work / "queries.json"
        asked = mix(corpus())
        queries.write_text(json.dumps(asked), "utf-8")
        for count in sizes:
            records.append(
                measure(count, work, peer=count in peers, keep=options.keep, queries=queries)
            )
            tell(records[-1])
            if options.json:
                content = {"goals": GOALS, "queries": asked, "sizes": records}
                options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    if options.svg:
        options.svg.write_text(plot(records), "utf-8")
    goals(records[-1])


if __name__ == "__main__":
    main()
