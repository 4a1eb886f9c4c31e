"""Index documents: fields of a paper, parts of compound words, and the day as a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etude.papers.search.text import DAY, category_terms, joined, name_terms, order_key, plain
from etude.papers.words import glued

if TYPE_CHECKING:
    import tantivy


def put(writer: tantivy.IndexWriter, row: dict[str, Any]) -> None:
    """Replace the document of a paper by that of `row`."""
    from tantivy import Document

    writer.delete_documents_by_term("id", row["id"])
    writer.add_document(document(Document(), row))


def document(empty: tantivy.Document, row: dict[str, Any]) -> tantivy.Document:
    """Fill an `empty` document with the fields of a paper's `row`, and return it."""
    add = empty.add_text
    add("id", row["id"])
    title, abstract = plain(row["title"]), plain(row["abstract"])
    for name, text in (("title", title), ("abstract", abstract)):
        add(name, text)
        # Each word's parts are a separate value, so that phrases do not span words.
        for pieces in glued(text):
            add(name, " ".join(pieces))
            if name == "title":
                add("word", " ".join(pieces))
        for whole in joined(text):
            add(name, whole)
    add("word", title)
    names: set[str] = set()
    for author in row["authors"]:
        names |= name_terms(author)
    for term in names:
        add("author", term)
    for term in category_terms(row["categories"]):
        add("cat", term)
    key = order_key(row["announced"], row["id"])
    empty.add_unsigned("order", key)
    empty.add_unsigned("day", key // DAY)
    return empty
