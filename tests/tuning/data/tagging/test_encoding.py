"""Words to tokens: first pieces by word, whatever the tokenizer; windows that drop no word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.schema import Sample
from etude.tuning.data.tagging.encoding import WordCounts, WordEncoder, windows

LABELS = ("O", "B-A", "I-A")
WORDS = ["Aspirin", "-", "induced", "ulcers", ",", "aspirin"]


def word_piece():
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "as", "##pi", "##rin", "-", "in", "##duced"]
    pieces += ["ul", "##cer", "##s", ",", "a", "b"]
    made = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", sep_token="[SEP]"
    )


def sentence_piece(prepend="always"):
    """A Unigram vocabulary with SentencePiece's mark for the space."""
    pieces = ["<unk>", "</s>", "▁", "▁as", "▁As", "pi", "rin", "-", "▁in", "duced", "▁ul", "cer"]
    pieces += ["s", ",", "▁a", "▁b", "a", "b", "in", "as", "ul"]
    made = Tokenizer(models.Unigram([(p, -float(len(pieces) - len(p))) for p in pieces], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    made.decoder = decoders.Metaspace(prepend_scheme=prepend)
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="</s>")


@pytest.fixture(params=["word_piece", "sentence_piece", "byte_level"])
def tokenizer(request, tiny_tokenizer):
    if request.param == "byte_level":
        return tiny_tokenizer
    return {"word_piece": word_piece, "sentence_piece": sentence_piece}[request.param]()


def encoder(tokenizer, max_length=64, **spec):
    return WordEncoder(tokenizer, DataSpec(train="-", **spec), max_length, LABELS)


def sample(words, tags, origin="rows:1"):
    return Sample((), " ".join(words), origin, words=tuple(words), tags=tuple(tags))


def test_only_the_first_piece_of_each_word_has_its_tag(tokenizer):
    made = encoder(tokenizer)
    tags = ["B-A", "O", "O", "O", "O", "B-A"]
    (one,) = made.encode_all([sample(WORDS, tags)], "BIO", WordCounts()).samples
    assert list(one.words.tags) == [1, 0, 0, 0, 0, 1]
    assert one.trained_tokens == len(WORDS) == int(one.trained.sum())
    pieces = made.pieces([WORDS])[0]
    starts = [int(place) for place in one.words.pieces]
    for place, tokens in zip(starts, pieces, strict=True):
        assert list(one.input_ids[place : place + len(tokens)]) == tokens
    assert any(len(tokens) > 1 for tokens in pieces)
    # special tokens as the tokenizer sets them around a text
    assert list(one.input_ids) == tokenizer(" ".join(WORDS))["input_ids"] or "Metaspace" in str(
        tokenizer.backend_tokenizer.pre_tokenizer
    )


def test_words_of_a_byte_level_vocabulary_keep_the_space_before_them(tiny_tokenizer):
    made = encoder(tiny_tokenizer)
    words = ["def", "value", "of", "text"]
    joined = [token for tokens in made.pieces([words])[0] for token in tokens]
    assert joined == tiny_tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]


def test_a_word_that_the_tokenizer_reads_as_nothing_keeps_its_place():
    made = encoder(word_piece())
    counts = WordCounts()
    words = ["as", "\u200b", "in"]
    (one,) = made.encode_all([sample(words, ["O", "B-A", "O"])], "BIO", counts).samples
    assert list(one.words.tags) == [0, 1, 0]
    assert list(one.input_ids) == [2, 4, 1, 8, 3]
    assert str(counts.unread) == "1 (rows:1, word 2)"


def test_a_word_longer_than_a_window_is_cut_and_counted():
    made = encoder(word_piece(), max_length=8)
    counts = WordCounts()
    words = ["in", "-".join(["ulcers"] * 4), "as"]
    found = made.encode_all([sample(words, ["O", "B-A", "O"])], "BIO", counts).samples
    assert [tag for one in found for tag in one.words.tags] == [0, 1, 0]
    assert max(map(len, found)) <= 8
    assert str(counts.cut) == "1 (rows:1, word 2)"


def test_a_type_without_outputs_is_refused_by_row():
    made = encoder(word_piece())
    with pytest.raises(DataError, match=r"rows:1: .*no entities of type 'B' \(did you mean|rows:1"):
        made.encode_all([sample(["as"], ["B-B"])], "BIO", WordCounts())


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=80),
    st.integers(6, 24),
    st.sampled_from([0.0, 0.1, 0.25, 0.5]),
)
def test_every_word_is_scored_once_where_it_has_most_context(pieces, room, overlap):
    found = windows(pieces, room, overlap)
    owned = [word for window in found for word in range(window.own_start, window.own_end)]
    assert owned == list(range(len(pieces)))
    ends = np.cumsum([0, *pieces])
    for window in found:
        assert window.start <= window.own_start < window.own_end <= window.end
        assert ends[window.end] - ends[window.start] <= room

    def context(word, window):
        left = np.inf if window.start == 0 else ends[word] - ends[window.start]
        right = np.inf if window.end == len(pieces) else ends[window.end] - ends[word + 1]
        return min(left, right)

    for window in found:
        for word in range(window.own_start, window.own_end):
            others = [w for w in found if w.start <= word < w.end]
            assert context(word, window) == max(context(word, other) for other in others)


def test_a_long_sentence_is_read_in_windows_and_nothing_is_dropped():
    made = encoder(word_piece(), max_length=10, window_overlap=0.25)
    words = ["in", "as", "-", "a"] * 25
    tags = ["O", "B-A", "I-A", "O"] * 25
    counts = WordCounts()
    encoded = made.encode_all([sample(words, tags), sample(["a"], ["O"])], "BIO", counts)
    assert [int(t) for one in encoded.samples for t in one.words.tags] == [0, 1, 2, 0] * 25 + [0]
    assert [one.words.sentence for one in encoded.samples] == [0] * counts.windows + [1]
    assert counts.windowed.count == 1
    assert counts.windows == len(encoded.samples) - 1 > 12
    assert all(len(one) <= 10 for one in encoded.samples)
    assert encoded.stats.trained_tokens == 101
