"""What a person is shown: every token in its place, in one of three states."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.encode import Encoder
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.inspect import html_sample, inspect_data, inspection_page, look, pieces
from etude.tuning.data.schema import DataSplit, Sample

SPEC = DataSpec(train="unused.jsonl", max_length=100)


def ask(prompt: str, answer: str, origin: str = "f:1") -> Sample:
    return Sample.conversation(("user", prompt), ("assistant", answer), origin=origin)


def text_in(shown, state: str) -> str:
    return "".join(piece.text for piece in shown.pieces if piece.state == state)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("ab é日👩\u200d✨ \n\t<>&"), min_size=1, max_size=30))
def test_pieces_joined_are_the_text(tiny_tokenizer, text):
    ids = np.array(tiny_tokenizer(text)["input_ids"], dtype=np.int32)
    encoded = EncodedSample(ids, np.zeros(len(ids), dtype=np.bool_), "f:1")
    shown = pieces(encoded, tiny_tokenizer)
    assert "".join(piece.text for piece in shown) == text
    assert not any("\ufffd" in piece.text for piece in shown)


def test_pieces_of_a_tokenizer_that_hides_spaces_are_the_text_too():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"▁The": 0, "▁red": 1, "▁fox": 2, "es": 3, "<unk>": 4}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    encoded = EncodedSample(np.array([0, 1, 2, 3], np.int32), np.zeros(4, np.bool_), "f:1")
    assert [piece.text for piece in pieces(encoded, tokenizer)] == ["The", " red", " fox", "es"]


def test_a_sample_that_fits_shows_what_is_trained(tiny_tokenizer):
    shown = look(Encoder(tiny_tokenizer, SPEC), ask("why?", "because."))
    assert text_in(shown, "trained") == "because.<|im_end|>"
    assert text_in(shown, "context").endswith("why?<|im_end|>\n<|im_start|>assistant\n\n")
    assert shown.note is None and not text_in(shown, "dropped")


def test_a_sample_over_the_length_is_shown_dropped(tiny_tokenizer):
    shown = look(Encoder(tiny_tokenizer, SPEC), ask("why? " * 60, "because."))
    assert {piece.state for piece in shown.pieces} == {"dropped"}
    assert "over data.max_length (100): dropped" in shown.note


def test_of_a_cut_prompt_the_missing_beginning_is_shown_dropped(tiny_tokenizer):
    spec = SPEC.model_copy(update={"too_long": "cut_prompt"})
    prompt = " ".join(str(number) for number in range(100))
    encoder = Encoder(tiny_tokenizer, spec)
    shown = look(encoder, ask(prompt, "because."))
    missing = text_in(shown, "dropped")
    assert prompt.startswith(missing) and len(missing) > 20
    seen = "".join(piece.text for piece in shown.pieces if piece.state != "dropped")
    assert seen == tiny_tokenizer.decode(encoder.encode(ask(prompt, "because.")).input_ids)


def test_a_sample_that_cannot_be_trained_on_is_shown_with_the_reason(tiny_tokenizer):
    shown = look(Encoder(tiny_tokenizer, SPEC), ask("why?", " "))
    assert "an answer is empty" in shown.note and "why?" in text_in(shown, "dropped")


def test_samples_that_would_stop_a_run_are_counted_and_said_to_stop_it(tiny_tokenizer):
    samples = [ask("a", "b"), ask("c", "", "f:2"), ask("word " * 90, "d", "f:3")]
    spec = SPEC.model_copy(update={"too_long": "error"})
    inspection = inspect_data(tiny_tokenizer, spec, DataSplit(samples, []), rows=3)
    assert inspection.train.samples == 1
    assert len(inspection.looks) == 3
    stops = [note for note in inspection.notes if note.startswith("a run would stop at 1 ")]
    assert len(stops) == 2 and "f:2" in stops[0] and "f:3" in stops[1]


class Spans(HTMLParser):
    """Collects (class, text) of spans, and refuses any other tag."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag, attrs):
        assert tag == "span" and list(dict(attrs)) == ["class"]
        self.found.append((dict(attrs)["class"], ""))

    def handle_data(self, data):
        self.found[-1] = (self.found[-1][0], self.found[-1][1] + data)


def test_html_holds_the_text_and_nothing_that_a_browser_would_run(tiny_tokenizer):
    prompt = "<script>alert('&amp;')</script>"
    encoded = Encoder(tiny_tokenizer, SPEC).encode(ask(prompt, "<b>no</b>"))
    reader = Spans()
    reader.feed(html_sample(encoded, tiny_tokenizer))
    reader.close()
    assert "".join(text for _, text in reader.found) == tiny_tokenizer.decode(encoded.input_ids)
    trained = "".join(text for state, text in reader.found if state == "trained")
    assert trained == "<b>no</b><|im_end|>"


@pytest.mark.parametrize("title", ["rows.jsonl", "<img src=x>"])
def test_the_page_is_self_contained_and_escaped(tiny_tokenizer, title):
    samples = [ask("<script>", "</pre><script>x</script>", "<i>:1")]
    page = inspection_page(inspect_data(tiny_tokenizer, SPEC, DataSplit(samples, []), 1), title)
    for text in ("<script", "<img", "<i>", "src=", "href="):
        assert text not in page.replace("&lt;img src=x&gt;", "")
