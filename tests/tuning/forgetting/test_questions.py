"""Questions of lm-eval's wheel, in lm-eval's own words and by its own scores."""

from __future__ import annotations

import json

import jinja2
import pytest
import torch
import yaml

from etude.core.errors import DataError
from etude.core.progress import SilentProgress
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.forgetting.probe import Probe
from etude.tuning.forgetting.questions import LETTERS, questions_file, read_questions
from etude.tuning.models.load import load_model


def test_questions_of_all_subjects_are_read():
    questions = read_questions(questions_file())
    assert len(questions) == 281
    assert len({question.subject for question in questions}) == 57
    for question in questions:
        assert len(set(question.answers)) >= 3  # one question of MMLU has an answer twice
        assert not any("(B)" in answer for answer in question.answers)
        assert "A: Let" not in question.prompt
    (pituitary,) = [q for q in questions if "pituitary gland?" in q.text]
    assert pituitary.answers == ("Abdominal", "Cranial", "Pleural", "Spinal")
    assert LETTERS[pituitary.right] == "B"


def test_a_question_is_put_in_the_words_of_the_harness():
    folder = questions_file().parents[1] / "default"

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda *_: None)
    template = yaml.load((folder / "_default_template_yaml").read_text(), Loader)
    subject = yaml.load((folder / "mmlu_anatomy.yaml").read_text(), Loader)
    question = next(q for q in read_questions(questions_file()) if q.subject == "anatomy")
    document = {"question": question.text, "choices": question.answers, "answer": question.right}
    theirs = jinja2.Template(template["doc_to_text"]).render(**document)
    assert question.prompt == subject["description"] + theirs
    assert template["doc_to_choice"] == list(LETTERS)


def test_a_file_of_another_form_is_refused(tmp_path):
    file = tmp_path / "prompts.json"
    file.write_text("{", "utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        read_questions(file)
    file.write_text(json.dumps({"anatomy": "Q: no answers"}), "utf-8")
    with pytest.raises(DataError, match="no questions"):
        read_questions(file)


def test_scores_are_those_of_the_harness(tiny_llama):
    """Log-likelihoods by lm-eval's own code, on the same model."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    spec = ModelSpec(id=str(tiny_llama()), dtype="float32")
    loaded = load_model(spec, QuantSpec(kind="none"))
    probe = Probe(loaded)
    ours = probe._through(probe.questions[:6], "questions", SilentProgress(), probe.letters)
    theirs_model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=1)
    assert all(len(sample) < 512 for sample in probe.questions[:6])  # none left out before them
    for logs, question in zip(ours, read_questions(questions_file()), strict=False):
        asked = [
            Instance("loglikelihood", {}, (question.prompt, f" {letter}"), index)
            for index, letter in enumerate(LETTERS)
        ]
        found = torch.tensor([value for value, _ in theirs_model.loglikelihood(asked)])
        torch.testing.assert_close(logs, found.log_softmax(0), atol=1e-5, rtol=1e-5)
