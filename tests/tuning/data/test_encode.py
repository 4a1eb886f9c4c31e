"""Which tokens are trained: decoded back and held against what a person would mark."""

from __future__ import annotations

import json
from itertools import groupby

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.counts import histogram
from etude.tuning.data.encode import TOO_LONG, Encoder
from etude.tuning.data.rendering import NOTHING_TRAINED
from etude.tuning.data.samples import load_samples
from etude.tuning.data.schema import Sample

SPEC = DataSpec(train="unused.jsonl", max_length=512)

SYSTEM = (
    "<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
)


def runs(encoded, tokenizer) -> list[tuple[bool, str]]:
    """Decode maximal runs of trained and untrained tokens."""
    marked = zip(encoded.trained.tolist(), encoded.input_ids.tolist(), strict=True)
    return [
        (trained, tokenizer.decode([token for _, token in run]))
        for trained, run in groupby(marked, key=lambda pair: pair[0])
    ]


def user(*contents: str, origin: str = "rows.jsonl:1") -> Sample:
    """Make a conversation of alternating user and assistant messages."""
    roles = ("user", "assistant")
    turns = [(roles[place % 2], content) for place, content in enumerate(contents)]
    return Sample.conversation(*turns, origin=origin)


# SmolLM2's own template


@pytest.mark.weights
def test_one_answer_is_trained_with_its_end_token_and_nothing_else(smollm2_tokenizer):
    encoded = Encoder(smollm2_tokenizer, SPEC).encode(user("What is 2+2?", "It is 4."))
    assert runs(encoded, smollm2_tokenizer) == [
        (
            False,
            SYSTEM + "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (True, "It is 4.<|im_end|>"),
        (False, "\n"),
    ]


@pytest.mark.weights
def test_every_answer_of_a_conversation_is_trained(smollm2_tokenizer):
    sample = Sample.conversation(
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello."),
        ("user", "Bye"),
        ("assistant", "See you."),
        origin="rows.jsonl:1",
    )
    assert runs(Encoder(smollm2_tokenizer, SPEC).encode(sample), smollm2_tokenizer) == [
        (
            False,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        (True, "Hello.<|im_end|>"),
        (False, "\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"),
        (True, "See you.<|im_end|>"),
        (False, "\n"),
    ]


@pytest.mark.weights
def test_answers_keep_every_character(smollm2_tokenizer):
    answer = "Zoë’s 日本語 👩‍👩‍👧: naïve\tx²≤½\n\n  indented"
    encoded = Encoder(smollm2_tokenizer, SPEC).encode(user("¿Qué? ✨", answer))
    trained = smollm2_tokenizer.decode(encoded.input_ids[encoded.trained])
    assert trained == answer + "<|im_end|>"


@pytest.mark.weights
def test_a_prompt_that_quotes_the_role_markers_is_not_taken_for_an_answer(smollm2_tokenizer):
    quoted = "Explain `<|im_start|>assistant\nfake<|im_end|>` to me"
    encoded = Encoder(smollm2_tokenizer, SPEC).encode(user(quoted, "It marks a turn."))
    trained = [text for is_trained, text in runs(encoded, smollm2_tokenizer) if is_trained]
    assert trained == ["It marks a turn.<|im_end|>"]


@pytest.mark.weights
def test_gsm8k_trains_each_answer_exactly_and_begins_with_the_generation_prompt(
    smollm2_tokenizer, shared_data
):
    file = shared_data / "instruct/gsm8k/test.jsonl"
    spec = DataSpec(
        train=str(file), prompt="question", completion="answer", eval_fraction=0.0, max_length=1024
    )
    encoder = Encoder(smollm2_tokenizer, spec)
    encoded = encoder.encode_all(load_samples(spec, 0).train)
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert len(encoded.samples) == len(rows) == 1319
    for sample, source, row in zip(encoded.samples, encoded.sources, rows, strict=True):
        trained = smollm2_tokenizer.decode(sample.input_ids[sample.trained])
        assert trained == row["answer"] + "<|im_end|>"
        prompt = encoder.prompt_ids(source)
        assert sample.input_ids[: len(prompt)].tolist() == prompt
        assert sample.trained[len(prompt)] and not sample.trained[: len(prompt)].any()
    assert encoded.stats.tokens == sum(encoded.lengths)
    assert sum(count for _, _, count in encoded.stats.histogram) == 1319


@pytest.mark.weights
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        # SmolLM2's vocabulary lacks the bytes of control characters and of the private planes.
        st.text(
            st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="<")
            | st.sampled_from("\n\t ")
        ),
        min_size=2,
    ).filter(lambda texts: all(text.strip() for text in texts[1::2]) and len(texts) % 2 == 0)
)
def test_whatever_the_texts_the_trained_tokens_are_the_answers(smollm2_tokenizer, texts):
    encoder = Encoder(smollm2_tokenizer, SPEC.model_copy(update={"max_length": 100_000}))
    encoded = encoder.encode(user(*texts))
    trained = [text for is_trained, text in runs(encoded, smollm2_tokenizer) if is_trained]
    assert trained == [answer + "<|im_end|>" for answer in texts[1::2]]
    prompt = encoder.prompt_ids(user(*texts))
    assert encoded.input_ids[: len(prompt)].tolist() == prompt


@pytest.mark.weights
def test_prompt_for_generation_is_what_the_chat_template_makes_of_it(smollm2_tokenizer):
    sample = user("Hi", "Hello.", "And?", "")
    turns = [turn.as_dict() for turn in sample.messages[:-1]]
    expected = smollm2_tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=False
    )
    encoder = Encoder(smollm2_tokenizer, SPEC)
    assert encoder.prompt_ids(sample) == expected
    assert encoder.reference(sample) == ""
    assert encoder.reference(user("Hi", "Hello.", "And?")) == "Hello."


# Templates that must be refused, or taken otherwise


def test_a_template_whose_generation_prompt_does_not_begin_the_answer_is_refused(templated):
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    with pytest.raises(DataError, match=r"differs between training and generation.*<think>"):
        Encoder(templated(template), SPEC)


def test_a_template_that_ends_answers_without_an_end_token_is_refused(templated):
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(DataError, match=r"without an end token.*never stop"):
        Encoder(templated(template), SPEC)


def test_a_template_that_rewrites_earlier_answers_is_refused_for_long_conversations(templated):
    # As templates of reasoning models do: an answer loses its thoughts once the talk goes on.
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    encoder = Encoder(templated(template), SPEC)
    assert encoder.encode(user("a", "b")).trained.any()
    with pytest.raises(DataError, match=r"rows.jsonl:1: .*answer 1 differently.*split"):
        encoder.encode(user("a", "b", "c", "d"))


MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}"
    "{% if loop.last %}<think></think>{% endif %}{{ m.content }}END{% endgeneration %}REST\n"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("end", "rest"),
    [
        ("<|im_end|>", ""),
        ("", "<|im_end|>"),
        ("<|im_end|>\n", ""),
        ("{% endgeneration %}{% generation %}<|im_end|>", ""),
    ],
)
def test_a_template_that_marks_its_answers_is_believed_up_to_the_end_token(templated, end, rest):
    tokenizer = templated(MARKED.replace("END", end).replace("REST", rest))
    encoded = Encoder(tokenizer, SPEC).encode(user("a", "bc", "d", "ef"))
    trained = [text for is_trained, text in runs(encoded, tokenizer) if is_trained]
    assert trained == ["bc<|im_end|>", "<think></think>ef<|im_end|>"]


def test_a_template_that_leaves_part_of_an_answer_out_is_refused(templated):
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    encoder = Encoder(templated(template), SPEC)
    assert encoder.encode(user("a", "b")).trained.any()
    with pytest.raises(DataError, match=r"rows.jsonl:1: the chat template changes answer 1"):
        encoder.encode(user("a", "<think>two</think>b"))


def test_a_template_that_marks_only_some_answers_is_refused(templated):
    template = MARKED.replace("END", "<|im_end|>").replace("REST", "")
    template = template.replace("m.role == 'assistant'", "m.role == 'assistant' and loop.last")
    with pytest.raises(DataError, match="marks 1 answers of 2"):
        Encoder(templated(template), SPEC).encode(user("a", "bc", "d", "ef"))


def test_what_a_template_writes_at_the_end_of_a_conversation_is_not_trained(templated):
    # The answer ends in one token, the whole in another (as Phi's do).
    template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content | trim }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% else %}<|endoftext|>{% endif %}"
    )
    tokenizer = templated(template, eos_token="<|endoftext|>")
    encoder = Encoder(tokenizer, SPEC)
    assert encoder.end_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert runs(encoder.encode(user("a", " b", "c", "d\n")), tokenizer) == [
        (False, "user:a<|im_end|>assistant:"),
        (True, "b<|im_end|>"),
        (False, "user:c<|im_end|>assistant:"),
        (True, "d<|im_end|>"),
        (False, "<|endoftext|>"),
    ]


def test_a_mark_that_begins_before_the_generation_prompt_ends_is_refused(templated):
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<|im_start|>"
        "assistant\n{{ m.content }}<|im_end|>{% endgeneration %}\n{% else %}<|im_start|>"
        "{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(DataError, match="differs between training and generation"):
        Encoder(templated(template), SPEC).encode(user("a", "b"))


def test_a_conversation_the_template_refuses_is_named(templated):
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    sample = Sample.conversation(
        ("system", "s"), ("user", "u"), ("assistant", "a"), origin="rows.jsonl:7"
    )
    with pytest.raises(DataError, match=r"rows.jsonl:7: .*System role not supported"):
        strict = SPEC.model_copy(update={"unsupported_system": "error"})
        Encoder(templated(template), strict).encode_all([user("a", "b"), sample])


def test_a_start_token_that_stands_twice_is_refused(tiny_tokenizer, templated):
    template = (
        "<|endoftext|>{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}{% endif %}"
    )
    encoder = Encoder(templated(template, bos_token="<|endoftext|>"), SPEC)
    assert encoder.encode(user("a", "b")).trained.any()
    with pytest.raises(DataError, match=r"'<\|endoftext\|>' occurs twice"):
        encoder.encode(user("<|endoftext|>a", "b"))


def test_an_answer_that_holds_the_end_token_is_refused(tiny_tokenizer):
    with pytest.raises(DataError, match=r"answer 1 contains the end token '<\|im_end\|>'"):
        Encoder(tiny_tokenizer, SPEC).encode(user("a", "b<|im_end|>\nc"))


def test_what_follows_the_last_answer_is_left_out(tiny_tokenizer):
    encoder = Encoder(tiny_tokenizer, SPEC)
    short, long = encoder.encode(user("a", "b")), encoder.encode(user("a", "b", "unanswered"))
    assert np.array_equal(short.input_ids, long.input_ids)


# Models without a chat template, and plain text


def test_without_a_template_prompt_and_answer_are_joined_and_the_end_token_appended(templated):
    tokenizer = templated(None)
    encoder = Encoder(tokenizer, SPEC)
    encoded = encoder.encode(user("2+2=", "4"))
    assert runs(encoded, tokenizer) == [(False, "2+2="), (True, "4<|im_end|>")]
    assert encoder.prompt_ids(user("2+2=", "4")) == encoded.input_ids[~encoded.trained].tolist()


def test_an_answer_begins_with_a_token_of_its_own(templated):
    # Tokenised together, the spaces of prompt and answer would be drawn into one token.
    tokenizer = templated(None)
    prompt, answer = "def f(x):\n    ", "    return x"
    together = tokenizer(prompt + answer, add_special_tokens=False)["input_ids"]
    alone = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert together[: len(alone)] != alone, "the premise of this test"
    encoder = Encoder(tokenizer, SPEC)
    encoded = encoder.encode(user(prompt, answer))
    assert runs(encoded, tokenizer) == [(False, prompt), (True, answer + "<|im_end|>")]
    assert encoded.input_ids[: len(alone)].tolist() == alone == encoder.prompt_ids(user(prompt, ""))


def test_several_turns_need_a_template(templated):
    with pytest.raises(DataError, match=r"rows.jsonl:1: this model has no chat template"):
        Encoder(templated(None), SPEC).encode(user("a", "b", "c", "d"))


def test_plain_text_is_trained_whole_but_its_first_token(tiny_tokenizer):
    encoded = Encoder(tiny_tokenizer, SPEC).encode(Sample.plain("To be or not", "play.txt:1"))
    assert tiny_tokenizer.decode(encoded.input_ids) == "To be or not<|im_end|>"
    assert encoded.trained.tolist() == [False] + [True] * (len(encoded) - 1)


def test_a_text_that_brings_its_end_token_does_not_get_another(tiny_tokenizer):
    encoded = Encoder(tiny_tokenizer, SPEC).encode(Sample.plain("To be<|im_end|>", "play.txt:1"))
    assert tiny_tokenizer.decode(encoded.input_ids) == "To be<|im_end|>"


def test_the_tokenizers_start_token_comes_first_and_is_not_trained(templated):
    from tokenizers.processors import TemplateProcessing

    tokenizer = templated(None)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    encoder = Encoder(tokenizer, SPEC)
    encoded = encoder.encode(user("2+2=", "4"))
    assert runs(encoded, tokenizer) == [(False, "<|im_start|>2+2="), (True, "4<|im_end|>")]
    assert encoder.prompt_ids(user("2+2=", "4"))[0] == tokenizer.bos_token_id


def test_a_tokenizer_without_an_end_token_is_refused(templated):
    with pytest.raises(DataError, match="no end token"):
        Encoder(templated(None, eos_token=None), SPEC)


# Length, and samples that train nothing


def lengths_spec(**changes) -> DataSpec:
    return SPEC.model_copy(update=changes)


def test_samples_that_are_too_long_are_dropped_counted_and_named(tiny_tokenizer):
    samples = [user("a", "b", origin="f:1"), user("word " * 200, "b", origin="f:2")]
    stats = Encoder(tiny_tokenizer, lengths_spec(max_length=64)).encode_all(samples).stats
    assert (stats.samples, str(stats.dropped[TOO_LONG])) == (1, "1 (f:2)")


def test_a_sample_that_is_too_long_stops_the_run_if_the_recipe_says_so(tiny_tokenizer):
    encoder = Encoder(tiny_tokenizer, lengths_spec(max_length=64, too_long="error"))
    with pytest.raises(DataError, match=r"f:2: .* more than data.max_length \(64\)"):
        encoder.encode_all([user("a", "b"), user("word " * 200, "b", origin="f:2")])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("abc é日👩 \n"), min_size=120, max_size=300))
def test_a_prompt_is_cut_from_the_left_and_the_rest_of_the_layout_stays(tiny_tokenizer, text):
    whole = user("short", "first answer", text, "last answer")
    encoder = Encoder(tiny_tokenizer, lengths_spec(max_length=128, too_long="cut_prompt"))
    encoded = encoder.encode_all([whole])
    (sample,), (source,) = encoded.samples, encoded.sources
    assert 120 < len(sample) <= 128
    assert text.endswith(source.messages[2].content)
    assert [turn.content for turn in source.messages[:2]] == ["short", "first answer"]
    trained = [part for is_trained, part in runs(sample, tiny_tokenizer) if is_trained]
    assert trained == ["first answer<|im_end|>", "last answer<|im_end|>"]
    assert tiny_tokenizer.decode(sample.input_ids).startswith("<|im_start|>system\n")
    assert encoded.stats.cut.count == 1


def test_an_answer_is_never_cut(tiny_tokenizer):
    encoder = Encoder(tiny_tokenizer, lengths_spec(max_length=64, too_long="cut_prompt"))
    encoded = encoder.encode_all([user("a", "b"), user("q", "word " * 200, origin="f:2")])
    assert str(encoded.stats.dropped[TOO_LONG]) == "1 (f:2)"


def test_a_sample_without_an_answer_stops_the_run_or_is_counted(tiny_tokenizer):
    samples = [user("a", "b"), user("only a question", origin="f:2"), user("q", " ", origin="f:3")]
    with pytest.raises(DataError, match=r"f:2: .*nothing would be trained"):
        Encoder(tiny_tokenizer, SPEC).encode_all(samples)
    lenient = Encoder(tiny_tokenizer, lengths_spec(no_trained_tokens="drop"))
    assert str(lenient.encode_all(samples).stats.dropped[NOTHING_TRAINED]) == "2 (f:2, f:3)"


def test_data_of_which_nothing_is_left_stops_the_run(tiny_tokenizer):
    encoder = Encoder(tiny_tokenizer, lengths_spec(max_length=8))
    with pytest.raises(
        DataError, match=r"no training samples are left.*longer than data.max_length: 1 \("
    ):
        encoder.encode_all([user("a", "b")])


def test_batches_give_what_single_samples_give(tiny_tokenizer):
    samples = [
        user(f"question {i} " * (i % 7 + 1), f"answer {i}", origin=f"f:{i}") for i in range(1100)
    ]
    samples[600] = Sample.plain("plain text among conversations", "f:600")
    encoder = Encoder(tiny_tokenizer, SPEC)
    together = encoder.encode_all(samples)
    for place in (0, 511, 512, 600, 1099):
        alone = encoder.encode(samples[place])
        assert np.array_equal(together.samples[place].input_ids, alone.input_ids)
        assert np.array_equal(together.samples[place].trained, alone.trained)
        assert together.samples[place].origin == f"f:{place}"


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60))
def test_histogram_counts_every_length_once_in_few_ranges(lengths):
    bars = histogram(lengths)
    assert len(bars) <= 12
    for low, high, count in bars:
        assert count == sum(low <= length <= high for length in lengths)
    assert sum(count for _, _, count in bars) == len(lengths)
