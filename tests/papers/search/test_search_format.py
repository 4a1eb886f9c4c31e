"""The number of an index's form grows with what makes its terms."""

import hashlib
import inspect

from etude.papers.search import documents, folder, text


def test_what_is_indexed_has_not_changed_without_its_number():
    """Where this fails, raise `folder.FORMAT` and write both down here: old ones are rebuilt."""
    made_by = (folder.schema, text.analyzers, documents.document, text.name_terms, text.plain)
    source = "\n".join(inspect.getsource(one) for one in made_by)
    assert (folder.FORMAT, hashlib.sha256(source.encode()).hexdigest()[:12]) == (2, "5143edc13db1")
