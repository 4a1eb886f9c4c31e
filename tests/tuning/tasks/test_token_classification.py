"""Token classification with a tiny BERT: data, learning, saving, PEFT and transformers, errors."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from etude.core.errors import AdapterError, DataError, ModelError, RecipeError
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.evaluation import evaluate_run
from etude.tuning.objectives.token_classification import TokenClassification, word_log_probs
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import TaskRecord
from etude.tuning.tasks.registry import task_named

DRUGS = ("aspirin", "selegiline", "lithium carbonate", "morphine")
ILLS = ("ulcer", "renal failure", "low bone turnover", "pain")
FRAMES = ("{d} causes {i} .", "{i} after {d} , again", "no {i} was seen with {d} -", "{d} , {d}")
LABELS = ("O", "B-Chemical", "I-Chemical", "B-Disease", "I-Disease")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def sentence(draw: random.Random) -> tuple[list[str], list[str]]:
    words, tags = [], []
    for part in draw.choice(FRAMES).split():
        if part in ("{d}", "{i}"):
            names, kind = (DRUGS, "Chemical") if part == "{d}" else (ILLS, "Disease")
            named = draw.choice(names).split()
            words += named
            tags += [f"{'I' if place else 'B'}-{kind}" for place in range(len(named))]
        else:
            words.append(part)
            tags.append("O")
    # All sentences differ, so that none is dropped as a copy of a held-out one.
    return [*words, str(draw.randrange(10**6))], [*tags, "O"]


def conll(path: Path, count: int = 160, seed: int = 0) -> Path:
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        lines += [f"{word}\t{tag}" for word, tag in zip(*sentence(draw), strict=True)] + [""]
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    """A small random BERT whose vocabulary splits some of the words in pieces."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {w for text in (*DRUGS, *ILLS, *FRAMES) for w in text.split() if "{" not in w}
    pieces = SPECIAL + sorted(words - {"aspirin", "renal", "turnover"})
    pieces += ["as", "##pi", "##rin", "re", "##nal", "turn", "##over"]
    pieces += [f"{mark}{digit}" for digit in range(10) for mark in ("", "##")]
    made = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        **dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=False)),
    )
    folder = tmp_path_factory.mktemp("tiny-bert")
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def fields(data, model, /, **sections):
    base = {
        "name": "entities",
        "task": "token-classification",
        "model": {"id": str(model), "dtype": "float32"},
        "adapter": {"rank": 8, "alpha": 16},
        "quant": {"kind": "none"},
        "data": {"train": str(data), "eval_fraction": 0.25, "max_length": 64},
        "train": {
            "epochs": 6,
            "batch_samples": 8,
            "micro_tokens": 256,
            "lr": 1e-2,
            "threads": 1,
        },
    }
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section} if isinstance(section, dict) else section
    return base


@pytest.fixture(scope="module")
def run(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("entities")
    recipe = fields(conll(folder / "rows.tsv"), tiny_bert)
    return tune(Recipe.parse(recipe), base=folder / "runs")


def test_a_tagger_learns_and_says_what_it_measured(run):
    summary = run.summary
    names = ["eval_loss", "entity_f1", "entity_precision", "entity_recall", "word_accuracy"]
    assert [metric["name"] for metric in summary["metrics"]] == names
    assert summary["entity_f1"] > 0.95 > 0.5 > summary["entity_f1_before"]
    assert summary["loss_unit"] == "nats per word"
    assert summary["memory_estimate"]["total"] > 0
    data = json.loads((run.folder / "data.json").read_text("utf-8"))
    assert data["totals"]["training words"] == data["totals"]["trained tokens"]
    assert data["totals"]["entities, Chemical"] > 100
    assert any("tags: BIO, 2 types of entities (Chemical, Disease)" in n for n in data["notes"])
    page = (run.folder / "report.html").read_text("utf-8")
    assert "Entity F1" in page
    assert "Errors by type and boundary" in page
    record = TaskRecord.read(run.folder / "adapter")
    options = {"scheme": "BIO", "word_splitting": "punctuation"}
    assert record == TaskRecord("token-classification", LABELS, options)


def test_entities_of_texts_and_of_words_have_their_places(run):
    predictor = load(run.folder)
    text = "Lithium carbonate, aspirin"
    listed = ["no", "renal", "failure", "was", "seen"]
    first, second, third = predictor.predict([text, listed, "  "])
    assert [(s.text, s.label) for s in first.spans] == [
        ("Lithium carbonate", "Chemical"),
        ("aspirin", "Chemical"),
    ]
    for span in first.spans:
        assert text[span.start : span.end] == span.text
        assert 0.5 < span.probability <= 1.0
    assert first.text == "Lithium carbonate (Chemical), aspirin (Chemical)"
    assert "words" not in first.as_json()["spans"][0]
    (one,) = second.as_json()["spans"]
    assert (one["words"], one["start"], one["end"]) == ([1, 3], 3, 16)
    assert third.spans == ()
    with pytest.raises(DataError, match="input 1: word 2 is empty"):
        predictor.predict([["a", " "]])


def test_a_finished_run_is_measured_again_the_same(run):
    measured = evaluate_run(RunFolder.open(run.folder), base=True)
    assert measured["tuned"]["entity_f1"] == run.summary["entity_f1"]
    assert measured["tuned"]["loss"] == pytest.approx(run.summary["eval_loss"], rel=1e-5)
    assert measured["base"]["entity_f1"] < 0.5


def first_pieces(tokenizer, model, words):
    """What anybody would do with transformers: the logits of each word's first piece."""
    encoded = tokenizer([words], is_split_into_words=True, return_tensors="pt")
    places = encoded.word_ids(0)
    with torch.no_grad():
        logits = model(**encoded).logits[0]
    firsts = [places.index(number) for number in range(len(words))]
    return logits[firsts].log_softmax(dim=1)


def own_log_probs(predictor, words):
    encoder = predictor.encoder
    pieces = encoder.pieces([words])[0]
    samples = encoder.samples(words, pieces, [0] * len(words), "words", 0)
    with torch.no_grad():
        return word_log_probs(
            predictor.loaded.model, Batch(samples, Layout(packed=False, pad_id=0))
        )


WORDS = ["Aspirin", "causes", "renal", "failure", ",", "aspirin", "7"]


def test_the_adapter_with_its_head_opens_in_transformers_and_peft(run, tiny_bert):
    from peft import PeftModel
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    config = json.loads((run.folder / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert config["task_type"] == "TOKEN_CLS"
    assert config["modules_to_save"] == ["classifier"]
    base = AutoModelForTokenClassification.from_pretrained(tiny_bert, num_labels=len(LABELS))
    model = PeftModel.from_pretrained(base, str(run.folder / "adapter")).eval()
    expected = first_pieces(AutoTokenizer.from_pretrained(tiny_bert), model, WORDS)
    # float32 throughout; the adapter is computed beside the base in another order of sums.
    torch.testing.assert_close(
        own_log_probs(load(run.folder), WORDS), expected, rtol=1e-4, atol=1e-5
    )


def test_an_adapter_with_a_head_that_peft_saved_opens(tiny_bert, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    from etude.tuning.adapters.save import load_adapter
    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.config.sections.quant import QuantSpec
    from etude.tuning.models.heads import Head
    from etude.tuning.models.load import load_model
    from etude.tuning.predictor import Predictor

    torch.manual_seed(3)
    base = AutoModelForTokenClassification.from_pretrained(tiny_bert, num_labels=len(LABELS))
    config = LoraConfig(task_type="TOKEN_CLS", r=4, target_modules=["query", "value"])
    theirs = get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(0.0, 0.3)
    theirs.save_pretrained(tmp_path / "adapter")
    head = Head("token-classification", LABELS)
    spec = ModelSpec(id=str(tiny_bert), dtype="float32")
    loaded = load_model(spec, QuantSpec(kind="none"), head=head)
    load_adapter(loaded.model, tmp_path / "adapter", origin=loaded.origin)
    recipe = Recipe.parse(fields("-", tiny_bert))
    encoder = task_named("token-classification").encoder(loaded, recipe)
    ours = own_log_probs(Predictor(loaded, encoder, adapted=True, recipe=recipe), WORDS)
    expected = first_pieces(AutoTokenizer.from_pretrained(tiny_bert), theirs, WORDS)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_head_and_adapter_merge_into_one_model_that_transformers_opens(
    run, tmp_path, etude_command
):
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    target = tmp_path / "merged"
    done = etude_command("merge", run.folder, "--output", target, "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    model = AutoModelForTokenClassification.from_pretrained(target).eval()
    assert model.config.id2label == dict(enumerate(LABELS))
    merged = first_pieces(AutoTokenizer.from_pretrained(target), model, WORDS)
    ours = own_log_probs(load(run.folder), WORDS)
    torch.testing.assert_close(ours, merged, rtol=1e-4, atol=1e-5)
    assert TaskRecord.read(target) == TaskRecord.read(run.folder / "adapter")


def test_full_fine_tuning_saves_a_tagger_that_transformers_opens(tiny_bert, tmp_path):
    from transformers import pipeline

    data = conll(tmp_path / "rows.tsv")
    recipe = fields(data, tiny_bert, adapter={"kind": "full"}, train={"lr": 3e-3})
    run = tune(Recipe.parse(recipe), base=tmp_path / "runs")
    assert run.summary["entity_f1"] > 0.9
    tagger = pipeline(
        "token-classification", model=str(run.folder / "model"), aggregation_strategy="first"
    )
    text = "morphine causes pain ."
    theirs = [(e["start"], e["end"], e["entity_group"]) for e in tagger(text)]
    (ours,) = load(run.folder).predict([text])
    assert [(s.start, s.end, s.label) for s in ours.spans] == theirs


def test_without_its_head_or_its_tags_a_tagger_predicts_nothing(run, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(run.folder, copy)
    record = TaskRecord.read(copy / "adapter")
    (copy / "adapter" / "task.json").unlink()
    with pytest.raises(AdapterError, match="the names of this tagger's tags are missing"):
        load(copy)
    record.write(copy / "adapter")
    weights = copy / "adapter" / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(weights).items() if "classifier" not in k}, weights)
    with pytest.raises(AdapterError, match="classifier"):
        load(copy)


def encoded(tiny_bert, tmp_path, max_length):
    recipe = Recipe.parse(
        fields(conll(tmp_path / "rows.tsv", 40), tiny_bert, data={"max_length": max_length})
    )
    task = task_named("token-classification")
    split = task.read(recipe)
    from etude.core.progress import SilentProgress
    from etude.tuning.models.load import load_model

    loaded = load_model(recipe.model, recipe.quant, head=task.head(split, recipe))
    return loaded, task.encode(split, loaded, recipe, SilentProgress()), task, recipe


def test_the_loss_does_not_depend_on_how_a_step_is_cut(tiny_bert, tmp_path):
    """Σ over all words / all words, against one row at a time in float64."""
    loaded, data, _, _ = encoded(tiny_bert, tmp_path, 64)
    model = loaded.model.double()
    objective = TokenClassification(data.encoder.decoder)
    samples = data.train.samples[:12]
    layout = Layout(packed=False, pad_id=0)

    def loss(groups):
        total = sum(objective.loss(model, Batch(g, layout), {}).total for g in groups)
        return float(total / objective.normalizer(samples))

    alone = loss([[sample] for sample in samples])
    assert loss([samples]) == pytest.approx(alone, rel=1e-12)
    assert loss([samples[:5], samples[5:]]) == pytest.approx(alone, rel=1e-12)
    words = sum(len(sample.words.tags) for sample in samples)
    assert objective.normalizer(samples) == words
    by_hand = 0.0
    for sample in samples:
        logits = model(input_ids=torch.as_tensor(sample.input_ids[None].astype("int64"))).logits[0]
        chosen = logits[torch.as_tensor(sample.words.pieces.astype("int64"))].log_softmax(1)
        tags = torch.as_tensor(sample.words.tags.astype("int64"))
        by_hand -= float(chosen.gather(1, tags[:, None]).sum())
    assert alone == pytest.approx(by_hand / words, rel=1e-12)


def test_windows_are_stitched_to_whole_sentences(tiny_bert, tmp_path):
    from etude.core.progress import SilentProgress

    loaded, data, task, recipe = encoded(tiny_bert, tmp_path, 8)
    assert any("in several windows" in key for key in data.facts)
    assert any(note.startswith("evaluation: sentences longer than") for note in data.notes)
    objective = task.objective(recipe, loaded, data, None, SilentProgress())
    measured = task.measure(loaded, data, recipe, objective, SilentProgress())
    records = task.sample_records(data, measured, measured)
    rows = task.read(recipe).eval
    assert [record["origin"] for record in records] == [row.origin for row in rows]
    assert measured.details["entities"]["sentences"] == len(rows)
    true = sum(score["true"] for score in measured.details["entities"]["types"].values())
    assert true == sum(tag.startswith("B-") for row in rows for tag in row.tags)


@pytest.mark.parametrize("scheme", ["auto", "BIO", "BIOES"])
def test_tags_are_trained_in_the_scheme_that_is_asked_for(tiny_bert, tmp_path, scheme):
    file = tmp_path / "bilou.conll"
    rows = ["renal U-A", "low B-A\nbone I-A\nturnover L-A", "pain U-A\n. O"]
    file.write_text("\n\n".join(rows), "utf-8")
    held_out = tmp_path / "bio.conll"
    held_out.write_text("ulcer B-A\nagain I-A", "utf-8")
    data = {"tag_scheme": scheme, "eval": str(held_out)}
    recipe = Recipe.parse(fields(file, tiny_bert, data=data))
    task = task_named("token-classification")
    split = task.read(recipe)
    letters = "BI" if scheme == "BIO" else "BIES"
    assert task.head(split, recipe).labels == ("O", *(f"{letter}-A" for letter in letters))
    trained = "BIO" if scheme == "BIO" else "BIOES"
    assert split.notes[0] == f"tags: BILOU, 1 type of entities (A); trained as {trained}"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"tokens": ["a", "b"], "ner_tags": ["O"]}], r"rows.jsonl:1: 2 words in 'tokens', but 1"),
        ([{"tokens": ["a", ""], "tags": ["O", "O"]}], r":1: word 2 of 'tokens' is empty"),
        ([{"tokens": [], "tags": []}], r":1: 'tokens' has no words"),
        ([{"tokens": ["a"], "tags": ["O"]}] * 3, "only the tag O"),
        ([{"tokens": ["a"], "tags": [3]}], r":1: tag 1 \('a'\) is the number 3.*data.tag_names"),
        ([{"tokens": ["a"], "tags": [None]}], r":1: tag 1 \('a'\) must be text.*got null"),
        ([{"tokens": "a", "tags": "O"}], r"'tokens' is not JSON"),
        ([{"tokens": ["a"], "tagz": ["O"]}], r":1: expected .*did you mean 'tags'"),
        ([{"sentence": "a"}], r":1: expected words and tags"),
        (
            [{"tokens": ["a"], "tags": ["B-X"]}, {"tokens": ["b"], "tags": ["PER"]}],
            r"'PER' in 1 \(rows.jsonl:2\)",
        ),
        ([{"text": "a b", "entities": [[0, 9, "X"]]}], r":1: entity 1 .*0 to 9 are no characters"),
        ([{"text": "a b", "entities": [[0, 1]]}], r":1: entity 1 .*must be \[start, end, label\]"),
        (
            [{"text": "a b c", "entities": [[0, 3, "X"], [2, 5, "Y"]]}],
            r":1: two entities share a word: X 'a b' and Y 'b c'",
        ),
        (
            [{"text": "🙂 b", "entities": [{"start": 3, "end": 4, "label": "X", "text": "b"}]}],
            r":1: entity 1 .*(are no characters|do not count characters)",
        ),
    ],
)
def test_rows_that_cannot_be_tagged_are_refused_by_name(tiny_bert, tmp_path, rows, message):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    spec = {"eval": str(conll(tmp_path / "eval.conll", 4)), "eval_fraction": 0.0}
    recipe = Recipe.parse(fields(data, tiny_bert, data=spec))
    with pytest.raises(DataError, match=message) as caught:
        task_named("token-classification").read(recipe)
    assert "\n" not in str(caught.value)


def test_a_named_column_that_does_not_exist_names_the_nearest(tiny_bert, tmp_path):
    recipe = Recipe.parse(
        fields(conll(tmp_path / "rows.conll", 4), tiny_bert, data={"tags": "tag"})
    )
    with pytest.raises(DataError, match=r"no column 'tag' \(data.tags\) \(did you mean 'tags'\?\)"):
        task_named("token-classification").read(recipe)


def test_each_side_of_the_data_is_read_in_its_own_scheme(tiny_bert, tmp_path):
    file = tmp_path / "bioes.conll"
    file.write_text("renal S-A\n\nlow B-A\nbone E-A\n\nx O", "utf-8")
    held_out = tmp_path / "bio.conll"
    held_out.write_text("ulcer B-A\nagain I-A\n\npain I-A", "utf-8")
    recipe = Recipe.parse(fields(file, tiny_bert, data={"eval": str(held_out)}))
    notes = task_named("token-classification").read(recipe).notes
    assert notes == [
        "tags: BIOES, 1 type of entities (A)",
        "evaluation: sentences whose tags break BIO, read as conlleval does: 1 (bio.conll:4)",
    ]


def test_broken_tags_are_counted_or_refused(tiny_bert, tmp_path):
    file = conll(tmp_path / "rows.conll", 40)
    file.write_text(file.read_text("utf-8") + "\nx\tO\nulcer\tI-Disease\n", "utf-8")
    task = task_named("token-classification")
    data = {"eval": str(conll(tmp_path / "eval.conll", 9, seed=5))}
    notes = task.read(Recipe.parse(fields(file, tiny_bert, data=data))).notes
    line = next(i for i, t in enumerate(file.read_text("utf-8").split("\n"), 1) if t == "x\tO")
    assert any(f"tags break BIO, read as conlleval does: 1 (rows.conll:{line})" in n for n in notes)
    data["broken_tags"] = "error"
    with pytest.raises(DataError, match=rf"tags break BIO, as I- after O does: 1 .*:{line}"):
        task.read(Recipe.parse(fields(file, tiny_bert, data=data)))


def test_a_type_that_training_never_saw_is_named_with_its_rows(tiny_bert, tmp_path):
    other = tmp_path / "eval.conll"
    other.write_text("pain\tB-Desease\n", "utf-8")
    data = {"eval": str(other)}
    recipe = Recipe.parse(fields(conll(tmp_path / "rows.conll", 20), tiny_bert, data=data))
    with pytest.raises(DataError, match=r"type 'Desease' \(did you mean 'Disease'\?\): 1 \(eval"):
        task_named("token-classification").read(recipe)


def test_an_objective_of_language_models_is_refused(tiny_bert):
    with pytest.raises(RecipeError, match=r"objective\.kind: dpo is for task: chat"):
        Recipe.parse(fields("rows.conll", tiny_bert, objective={"kind": "dpo"}))


def test_packed_rows_have_the_log_probabilities_of_padded_ones(tiny_llama, tiny_tokenizer):
    """In float64, on a decoder; each sentence attends to itself only."""
    from etude.tuning.config.sections.data import DataSpec
    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.config.sections.quant import QuantSpec
    from etude.tuning.data.tagging.encoding import WordEncoder
    from etude.tuning.fusion.packed_attention import packed_rows
    from etude.tuning.models.heads import Head
    from etude.tuning.models.load import load_model

    head = Head("token-classification", LABELS)
    spec = ModelSpec(id=str(tiny_llama(tied=False)), dtype="float32")
    loaded = load_model(spec, QuantSpec(kind="none"), head=head)
    model = loaded.model.double()
    encoder = WordEncoder(loaded.tokenizer, DataSpec(train="-"), 64, LABELS)
    draw = random.Random(4)
    samples = []
    for number in range(5):
        words = sentence(draw)[0]
        pieces = encoder.pieces([words])[0]
        samples += encoder.samples(words, pieces, [0] * len(words), "words", number)
    with torch.no_grad():
        padded = word_log_probs(model, Batch(samples, Layout(packed=False, pad_id=0)))
        with packed_rows(model):
            packed = word_log_probs(model, Batch(samples, Layout(packed=True)))
    assert len(padded) == sum(sample.trained_tokens for sample in samples)
    torch.testing.assert_close(packed, padded, rtol=1e-10, atol=1e-10)


def test_tags_are_decoded_as_the_recipe_says(run, tmp_path):
    import yaml

    from etude.tuning.config.recipe import apply_override

    copy = tmp_path / "copy"
    shutil.copytree(run.folder, copy)
    assert load(copy).encoder.decoder.constrained
    content = yaml.safe_load((copy / "recipe.yaml").read_text("utf-8"))
    apply_override(content, "eval.tag_decoding=argmax")
    (copy / "recipe.yaml").write_text(yaml.safe_dump(content), "utf-8")
    predictor = load(copy)
    assert not predictor.encoder.decoder.constrained
    (found,) = predictor.predict(["aspirin causes renal failure ."])
    assert [span.text for span in found.spans] == ["aspirin", "renal failure"]


@pytest.mark.slow
@pytest.mark.weights
def test_minilm_finds_chemicals_and_diseases(shared_data, tmp_path):
    """BC5CDR, 1,000 of its 4,546 sentences; what the recipe ships with, for a fifth of its time."""
    from etude.tuning.config.shipped import find_recipe

    folder = shared_data / "ner" / "bc5cdr"
    overrides = [
        f"data.eval={folder / 'devel.tsv'}",
        "data.max_train=1000",
        "data.max_eval=300",
        "train.epochs=2",
    ]
    recipe = Recipe.read(
        find_recipe("token-classification"), overrides, data=str(folder / "train.tsv")
    )
    run = tune(recipe, base=tmp_path / "runs")
    assert run.summary["entity_f1"] > 0.5
    text = "Lithium carbonate toxicity caused renal failure."
    (found,) = load(run.folder).predict([text])
    assert {span.label for span in found.spans} <= {"Chemical", "Disease"}
    assert any(span.text.lower().startswith("lithium") for span in found.spans)


def test_a_tagger_learns_the_tags_of_a_run(run, tiny_bert, tmp_path):
    """Over the words of the whole step, however it is cut into micro-batches."""
    data = conll(tmp_path / "rows.tsv")
    objective = {"kind": "distill", "teacher": str(run.folder), "label_weight": 0.0}
    student = tune(
        Recipe.parse(fields(data, tiny_bert, objective=objective)), base=tmp_path / "runs"
    )
    assert student.summary["objective"] == "distill"
    assert student.summary["entity_f1"] > 0.9
    assert 0 < student.summary["teacher_kl"] < 0.2 * student.summary["teacher_kl_before"]
    found = []
    for micro_tokens, scores in ((16, None), (512, None), (512, str(tmp_path / "scores"))):
        own = {**objective, "label_weight": 0.25, "teacher_scores": scores}
        train = {"max_steps": 2, "micro_tokens": micro_tokens}
        recipe = fields(data, tiny_bert, objective=own, train=train)
        folder = RunFolder.open(tune(Recipe.parse(recipe), base=tmp_path / "runs").folder)
        found.append([record["loss"] for record in folder.read_metrics() if "loss" in record])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    # All tags are stored, in 16 bits.
    assert found[2] == pytest.approx(found[1], rel=2e-3)


def test_a_teacher_with_other_tags_is_refused(run, tiny_bert, tmp_path):
    rows = conll(tmp_path / "rows.tsv")
    rows.write_text(rows.read_text("utf-8").replace("Disease", "Illness"), "utf-8")
    objective = {"kind": "distill", "teacher": str(run.folder)}
    with pytest.raises(ModelError, match=r"the student .*Illness"):
        tune(Recipe.parse(fields(rows, tiny_bert, objective=objective)), base=tmp_path / "runs")
