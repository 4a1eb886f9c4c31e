"""Groups of papers by topic."""

from etude.papers.ranking.corpus import learn_corpus
from etude.papers.ranking.topics import FEWEST_PAPERS, topics

SUBJECTS = ("walrus tracking", "protein folding", "speech translation", "graph colouring")


def paper(number):
    subject = SUBJECTS[number % len(SUBJECTS)]
    filler = f"method{number} study{number % 7} result{number % 5}"
    return {
        "id": f"2604.{number:05}",
        "title": f"On {subject}",
        "abstract": f"We address {subject} by {filler}. {subject.capitalize()} improves.",
        "categories": ["cs.LG"],
    }


ROWS = [paper(number) for number in range(40)]


def test_each_subject_is_a_group_and_its_name_is_in_all_of_its_papers():
    corpus = learn_corpus(iter(ROWS))
    found = topics(corpus, ROWS)
    assert sorted(place for topic in found for place in topic.places) == list(range(40))
    named = [topic for topic in found if topic.name]
    assert len(named) == 4
    for topic in named:
        assert len({place % 4 for place in topic.places}) == 1
        for place in topic.places:
            text = f"{ROWS[place]['title']} {ROWS[place]['abstract']}".lower()
            assert topic.name.lower() in text


def test_the_same_papers_give_the_same_groups():
    corpus = learn_corpus(iter(ROWS))
    assert topics(corpus, ROWS) == topics(corpus, ROWS)


def test_few_papers_are_the_rest():
    corpus = learn_corpus(iter(ROWS))
    (rest,) = topics(corpus, ROWS[: FEWEST_PAPERS - 1])
    assert rest.name == ""
    assert topics(corpus, []) == []
