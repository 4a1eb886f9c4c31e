"""`etude papers` as a person types it, against a server in arXiv's place."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from etude.papers.fake_arxiv import ReplayServer, generated

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def arxiv():
    with ReplayServer(generated(120, first=date.today() - timedelta(days=12), days=9)) as server:
        yield server


@pytest.fixture(scope="module")
def etude(arxiv, tmp_path_factory, etude_command):
    """One person's installation, with the papers of the last days."""
    home = tmp_path_factory.mktemp("reader")

    def run(*arguments, **more):
        environment = {
            "ETUDE_HOME": str(home / "home"),
            "ETUDE_USER": "ada",
            "ETUDE_ARXIV": arxiv.address,
            "ETUDE_DATABASE": "",
            **more,
        }
        return etude_command("papers", *arguments, cwd=home, **environment)

    none = run("today")
    assert none.returncode == 2 and "etude papers sync" in none.stderr
    first = run("sync")
    assert first.returncode == 0, first.stderr
    assert "summaries made" in first.stdout
    return run


def ids(etude, *query, most=5):
    return etude("search", *query, "--ids", "-n", str(most)).stdout.split()


def test_a_second_sync_changes_nothing(etude):
    again = etude("sync")
    assert again.returncode == 0 and again.stdout.startswith("0 new, 0 changed")


def test_today_follows_what_is_liked_and_says_why(etude):
    before = etude("today", "-n", "3").stdout
    assert "no likes yet: newest first" in before
    liked = ids(etude, "the OR a OR we", most=3)
    assert len(liked) == 3
    assert etude("like", *liked).stdout.count("liked") == 3
    assert "was liked already" in etude("like", liked[0]).stdout
    after = etude("today", "-n", "3").stdout
    assert "no likes yet" not in after and "+" in after
    learned = etude("interests").stdout
    assert learned.startswith("from 3 likes") and "more: " in learned
    assert "no longer liked" in etude("unlike", liked[2]).stdout


def test_a_paper_is_shown_with_all_that_is_known(etude):
    # Which paper a search finds first depends on the day; not all were seen in an announcement.
    pages = {
        key: etude("show", f"https://arxiv.org/abs/{key}v1").stdout
        for key in ids(etude, "the OR a OR we", most=12)
    }
    for key, page in pages.items():
        assert f"https://arxiv.org/abs/{key}" in page
        assert "summary: " in page and "related:" in page
    assert any("announced: " in page for page in pages.values())


def test_tags_searches_and_authors_are_kept(etude):
    first, second = ids(etude, "the OR a OR we", most=2)
    etude("tag", "to-read", first, second)
    assert "to-read · 2" in etude("tag").stdout
    etude("tag", "to-read", second, "--remove")
    listed = etude("tag", "to-read").stdout
    assert first in listed and second not in listed
    kept = etude("save", "words", "title:the OR title:a")
    assert kept.returncode == 0 and "papers now" in kept.stdout
    assert "words: title:the OR title:a" in etude("save").stdout
    assert "nothing new" in etude("alerts").stdout
    assert "followed" in etude("follow", "Ada Lovelace").stdout
    assert "Ada Lovelace" in etude("follow").stdout
    assert "no longer followed" in etude("unfollow", "A. Lovelace").stdout


@pytest.mark.parametrize("form", ["bibtex", "csl-json", "ris", "csv", "json"])
def test_papers_go_out_and_come_back(etude, form, tmp_path):
    (key,) = ids(etude, "the OR a OR we", most=1)
    file = tmp_path / f"papers.{form}"
    done = etude("export", key, "--format", form, "-o", str(file))
    assert done.returncode == 0 and "1 papers as " in done.stdout
    back = etude("import", str(file), "--format", form, "--tag", f"from-{form}")
    assert back.returncode == 0, back.stderr
    assert "1 entries, 0 papers added" in back.stdout
    assert f"from-{form} · 1" in etude("tag").stdout


def test_everything_moves_to_another_machine(etude, tmp_path):
    (key,) = ids(etude, "the OR a OR we", most=1)
    etude("tag", "moved", key)
    backup = tmp_path / "backup.json"
    etude("export", "--everything", "-o", str(backup))
    elsewhere = {"ETUDE_HOME": str(tmp_path / "other")}
    assert etude("import", str(backup), **elsewhere).returncode == 0
    assert "moved · 1" in etude("tag", **elsewhere).stdout
    again = tmp_path / "again.json"
    etude("export", "--everything", "-o", str(again), **elsewhere)
    one, other = (json.loads(file.read_text()) for file in (backup, again))
    assert {paper["id"] for paper in one["papers"]} == {paper["id"] for paper in other["papers"]}
    assert one["reader"] == other["reader"]


def test_a_digest_has_the_day_and_the_problem_of_the_day(etude, tmp_path):
    page = tmp_path / "digest.html"
    done = etude("digest", "-n", "2", "--html", str(page), "--markdown", str(tmp_path / "d.md"))
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "etude practice start" in text and "arxiv.org/abs/" in text
    assert "Thank you to arXiv" in text
    assert etude("digest", "-n", "1").stdout.startswith("Papers of ")


BIB = """@misc{x, title = {Attention Is All You Need}, author = {Vaswani, Ashish},
eprint = {1706.03762}, archivePrefix = {arXiv},
abstract = {We propose the Transformer. It needs attention alone.}}"""


def test_a_list_of_references_makes_a_library_of_its_own(etude, tmp_path):
    elsewhere = {"ETUDE_HOME": str(tmp_path / "other")}
    file = tmp_path / "refs.bib"
    file.write_text(BIB)
    added = etude("import", str(file), "--like", **elsewhere)
    assert added.returncode == 0 and "1 papers added" in added.stdout
    today = etude("today", **elsewhere)
    assert today.returncode == 2 and "etude papers sync" in today.stderr
    assert today.stderr.count("\n") == 1
    shown = etude("show", "1706.03762", **elsewhere).stdout
    assert "We propose the Transformer." in shown
    assert max(map(len, shown.splitlines())) < 200
    assert etude("health", **elsewhere).returncode == 1
    file.write_text('{"no": "bibtex"}')
    empty = etude("import", str(file), **elsewhere)
    assert empty.returncode == 2 and "refs.bib" in empty.stderr


def test_one_wrong_id_does_not_keep_the_others_from_it(etude):
    (key,) = ids(etude, "the OR a OR we", most=1)
    etude("unlike", key)
    done = etude("like", "9912.99999", key)
    assert done.returncode == 2 and "9912.99999" in done.stderr and f"{key} liked" in done.stdout
    listed = etude("search", "the OR a OR we", "--order", "interest", "--ids", "-n", "500")
    # What is known already comes last, with what other tests have liked.
    assert key in listed.stdout.split()[-4:] and key not in listed.stdout.split()[:4]
    etude("unlike", key)


def test_everything_goes_out_in_any_format(etude, tmp_path):
    file = tmp_path / "all.bib"
    told = etude("export", "--everything", "-o", str(file)).stdout
    assert "as bibtex in" in told and file.read_text().startswith("@")


def test_a_word_is_left_out_without_quotes(etude):
    assert etude("search", "the", "-zzzz").returncode == 0


def test_health_says_when_papers_last_came(etude):
    told = etude("health")
    assert f"last success {datetime.now(UTC):%Y-%m-%d}" in told.stdout
    assert "papers; the newest were announced on" in told.stdout


def test_a_source_that_is_down_is_told_and_fails_the_command(arxiv, etude, tmp_path):
    settings = tmp_path / "papers.yaml"
    settings.write_text("tries: 1\npause: 0\n")
    arxiv.spoil("any:500x*")
    try:
        done = etude("sync", "--settings", str(settings))
    finally:
        arxiv.faults.clear()
    assert done.returncode == 1
    assert "500" in done.stdout and "Traceback" not in done.stderr
    assert etude("health").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("search", '"never closed'), "quotation mark"),
        (("search", "OR"), "OR"),
        (("search", "the", "--category", "cs.CVV"), "did you mean 'cs.CV'"),
        (("tag", "nosuch"), "no paper has the tag 'nosuch'"),
        (("show", "9912.99999"), "not among the papers"),
        (("show", "../../etc/passwd"), "not an arXiv id"),
        (("like", "abc"), "abc"),
        (("today", "--shelf", "visoin"), "did you mean 'vision'"),
        (("today", "--day", "yesterday"), "is no day"),
        (("export", "--tag", "none"), "no paper has the tag"),
        (("export",), "nothing to export"),
        (("import", "missing.bib"), "cannot be read"),
        (("save", "nothing"), "no saved search"),
        (("digest", "--mail"), "mail"),
        (("summarise", "--by", "address"), "ETUDE_LLM_URL"),
    ],
)
def test_a_mistake_is_one_clear_line(etude, arguments, says):
    done = etude(*arguments)
    assert done.returncode == 2
    assert says in done.stderr and done.stderr.strip().count("\n") == 0, done.stderr


def test_hostile_titles_cannot_steer_the_terminal(etude, tmp_path):
    """What others wrote reaches the screen as text: no escape codes, no markup of ours."""
    file = tmp_path / "hostile.json"
    (key,) = ids(etude, "the OR a OR we", most=1)
    etude("export", key, "--format", "json", "-o", str(file))
    content = json.loads(file.read_text())
    paper = content["papers"][0]
    paper |= {
        "id": "2601.12345",
        "title": "[bold red]\x1b[2J\x1b]0;owned\x07 \u202egnp.exe [link=http://x]zebrafish[/link]",
    }
    file.write_text(json.dumps(content))
    assert "1 papers added" in etude("import", str(file)).stdout
    for arguments in (("search", "zebrafish"), ("show", "2601.12345"), ("digest",)):
        shown = etude(*arguments).stdout
        assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert "[bold red]" in etude("search", "zebrafish").stdout
