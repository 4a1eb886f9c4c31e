"""`etude practice` as a person types it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest


@pytest.fixture
def etude(tmp_path, etude_command):
    def run(*arguments, **more):
        environment = {
            "ETUDE_HOME": str(tmp_path / "home"),
            "ETUDE_USER": "ada",
            "ETUDE_DATABASE": "",
            "TZ": "Europe/Berlin",
            **more,
        }
        return etude_command("practice", *arguments, cwd=tmp_path, **environment)

    return run


def test_a_first_evening(etude, tmp_path, tensor_dataset):
    slug = tensor_dataset.slug
    assert slug in etude("list", "--collection", "pytorch").stdout
    started = etude("start", slug)
    assert started.returncode == 0 and "TensorDataset" in started.stdout
    answer = tmp_path / f"{slug}.py"
    assert answer.read_text() == tensor_dataset.starter
    assert "stays as it is" in etude("start", slug).stdout
    run = etude("run", slug)
    assert run.returncode == 1 and "NotImplementedError" in run.stdout
    answer.write_text({name: text for name, text, _ in tensor_dataset.wrong}["squeezed.py"])
    assert "wrong answer: shape" in etude("submit", slug).stdout
    assert "Hint 1 of 3" in etude("hint", slug).stdout
    assert "Hint 2 of 3" in etude("hint", slug).stdout
    explained = etude("explain", slug).stdout
    assert "squeeze" in explained and "ETUDE_LLM_URL" in explained
    answer.write_text(tensor_dataset.solution)
    submitted = etude("submit", slug)
    assert (
        submitted.returncode == 0
        and "✓ accepted" in submitted.stdout
        and "isolation:" in submitted.stdout
    )
    assert "references to the tensors" in etude("explain", slug).stdout
    stats = etude("stats").stdout
    assert "solved 1 of 1 tried, 2 submissions" in stats and "streak 1 days" in stats
    first = etude("daily").stdout
    assert first == etude("daily").stdout and "etude practice start" in first


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("start", "create-tensordatset"), "did you mean 'create-tensordataset'"),
        (("run", "create-tensordataset"), "etude practice start create-tensordataset"),
        (("list", "--difficulty", "impossible"), "easy, medium, hard"),
        (("new", "cooking", "x"), "unknown collection"),
        (("new", "llm", "Bad Name"), "lower-case"),
    ],
)
def test_a_mistake_is_one_clear_line(etude, arguments, says):
    done = etude(*arguments)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


def test_a_layer_that_this_machine_lacks_is_refused_by_name(etude, tmp_path, tensor_dataset):
    (tmp_path / "create-tensordataset.py").write_text(tensor_dataset.solution)
    done = etude("run", "create-tensordataset", "--require", "magic")
    assert done.returncode == 2 and "unknown layer 'magic'" in done.stderr


def test_a_model_that_is_set_is_asked_and_named(etude, tmp_path, tensor_dataset):
    (tmp_path / "create-tensordataset.py").write_text(tensor_dataset.wrong[1][1])
    done = etude(
        "explain",
        "create-tensordataset",
        ETUDE_LLM_URL="http://127.0.0.1:9/v1",
        ETUDE_LLM_MODEL="m1",
    )
    assert done.returncode == 2 and "m1 says" in done.stdout and "cannot be reached" in done.stderr


def test_a_models_explanation_is_shown_and_rated(etude, tmp_path, tensor_dataset):
    answers = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            piece = {"choices": [{"delta": {"content": "Look at the one feature test again."}}]}
            self.wfile.write(f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n".encode())
            answers.append(self.path)

        def log_message(self, *_):
            pass

    assert "no explanation" in etude("rate", "yes").stderr
    (tmp_path / "create-tensordataset.py").write_text(tensor_dataset.wrong[1][1])
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        address = f"http://127.0.0.1:{server.server_port}/v1"
        told = etude(
            "explain", "create-tensordataset", ETUDE_LLM_URL=address, ETUDE_LLM_MODEL="m1"
        ).stdout
        server.shutdown()
    assert answers == ["/v1/chat/completions"]
    assert "m1 says" in told and "etude practice rate yes" in told
    assert "create-tensordataset by m1: no" in etude("rate", "no").stdout
    assert "m1 explained 1 times: 0 helped, 1 did not" in etude("stats").stdout
    assert etude("rate", "perhaps").returncode == 2
