"""The client of chat completions against a real server on this machine."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core.chat_client import (
    ChatClient,
    ChatEndpoint,
    ReasoningFilter,
    without_reasoning,
)
from etude.core.errors import ChatError

CHAT = [{"role": "user", "content": "Why?"}]
OPTIONS = {"temperature": 0.5, "max_tokens": 7}


class Server:
    """Answers every request with one status, reason and body, sent in `chunks`."""

    def __init__(self, chunks, status=200, reason=None, kind="application/json", pause=None):
        self.asked = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append((self.path, self.headers, body))
                self.send_response(status, reason)
                self.send_header("Content-Type", kind)
                self.end_headers()
                for chunk in chunks:
                    self.wfile.write(chunk)
                    self.wfile.flush()
                if pause is not None:
                    pause.wait(30)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def serve():
    made = []

    def start(*chunks, **options):
        made.append(Server(chunks, **options))
        return made[-1]

    yield start
    for server in made:
        server.http.shutdown()
        server.http.server_close()


def complete(server, **options):
    with ChatClient(ChatEndpoint(server.url, "m", "secret"), **options) as client:
        return client.complete(CHAT, **OPTIONS)


def stream(server, **options):
    with ChatClient(ChatEndpoint(server.url, "m", "secret"), **options) as client:
        return list(client.stream(CHAT, **OPTIONS))


def said(message):
    return json.dumps({"choices": [{"message": message}]}).encode()


def events(*deltas, done=True):
    lines = [
        f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n".encode() for delta in deltas
    ]
    return [*lines, b"data: [DONE]\n\n"] if done else lines


def test_a_request_is_what_the_api_documents(serve):
    server = serve(said({"content": "Because."}))
    assert complete(server) == "Because."
    ((path, headers, body),) = server.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {"model": "m", "messages": CHAT, "stream": False, **OPTIONS}


def test_no_key_sends_no_header(serve):
    server = serve(said({"content": "Because."}))
    with ChatClient(ChatEndpoint(server.url, "m")) as client:
        client.complete(CHAT, **OPTIONS)
    assert server.asked[0][1]["Authorization"] is None


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "a < b, <b>c</b>"}, "a < b, <b>c</b>"),
        ({"content": "<think>Hm.</think>\n\nYes."}, "Yes."),
        ({"content": "<THINKING>Hm.</THINKING>Yes."}, "Yes."),
        ({"content": "Hm, so.</think>Yes."}, "Yes."),
        ({"content": "Hm. Yes <think>wait"}, "Hm. Yes "),
        ({"content": "<think>a <think> b</think>Yes.<think>c</think>"}, "Yes."),
        ({"content": "<think>never ends"}, ""),
        ({"content": "Yes.", "reasoning_content": "Hm.", "reasoning": "Hm."}, "Yes."),
        (
            {"content": [{"type": "thinking", "text": "Hm."}, {"type": "text", "text": "Yes."}]},
            "Yes.",
        ),
    ],
)
def test_reasoning_is_dropped_from_answers(serve, message, text):
    assert complete(serve(said(message))) == text


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>busy</html>", "sends no chat completion"),
        (b"[]", "sends no chat completion"),
        (b"7", "sends no chat completion"),
        (b"{}", "sends no chat completion"),
        (b'{"choices": []}', "sends no chat completion"),
        (b'{"choices": [{}]}', "sends no chat completion"),
        (b"\xff\xfe\x00", "sends no chat completion"),
        (b"[" * 100_000, "sends no chat completion"),
        (said({"content": None, "reasoning_content": "Hm."}), "without text"),
        (said({"content": 5}), "without text"),
        (b'{"error": {"message": "no such\\nmodel"}}', "reports an error: no such model"),
        (b'{"error": "no such model"}', "reports an error: no such model"),
    ],
)
def test_an_answer_that_is_no_completion_is_one_line(serve, body, error):
    server = serve(body)
    with pytest.raises(ChatError) as caught:
        complete(server)
    assert str(caught.value).startswith(f"the model at {server.url} ")
    assert error in str(caught.value)
    assert str(caught.value).isprintable(), "more than one line"


@pytest.mark.parametrize("ask", [complete, stream])
def test_a_refusal_gives_status_and_reason(serve, ask):
    body = b'{"error": {"message": "model \\u001b[31m\\"m\\" not found,\\ntry pulling it"}}'
    server = serve(body, status=404, reason="Not Found")
    with pytest.raises(ChatError) as caught:
        ask(server)
    assert str(caught.value) == (
        f'the model at {server.url} answers 404 Not Found: model [31m"m" not found, try pulling it'
    )
    with pytest.raises(ChatError, match=r"answers 502 Bad Gateway: <p>x{100}"):
        ask(serve(b"<p>" + b"x" * 5000, status=502, reason="Bad Gateway"))
    with pytest.raises(ChatError, match=r"answers 307 Temporary Redirect$"):
        ask(serve(b"", status=307, reason="Temporary Redirect"))


@pytest.mark.parametrize("ask", [complete, stream])
def test_answers_have_a_largest_size(serve, ask):
    with pytest.raises(ChatError, match="sends more than 1,000 bytes"):
        ask(serve(b"x" * 100_000, kind="text/event-stream"), max_bytes=1000)


@pytest.mark.parametrize("ask", [complete, stream])
def test_a_silent_server_is_not_waited_for(serve, ask):
    release = threading.Event()
    try:
        with pytest.raises(ChatError, match="does not answer in time"):
            ask(serve(b"data: ", kind="text/event-stream", pause=release), timeout=0.1)
    finally:
        release.set()


@pytest.mark.parametrize("ask", [complete, stream])
def test_an_answer_that_trickles_has_a_deadline(serve, ask):
    with pytest.raises(ChatError, match="takes longer than 0 s"):
        ask(serve(*events({"content": "a"})), timeout=30, deadline=0)


def test_a_server_that_is_down_is_one_line(serve):
    server = serve()
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(ChatError, match=r"the model at http://127\.0\.0\.1:\d+/v1 cannot be reach"):
        complete(server)


def text_of(pieces):
    shown = ""
    for piece in pieces:
        shown = piece.text if piece.restarts else shown + piece.text
    return shown


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        (events({"role": "assistant"}, {"content": "Ye"}, {"content": "s."}), "Yes."),
        (events({"content": "Yes."}, done=False), "Yes."),
        (events({"reasoning_content": "Hm."}, {"content": None}, {"content": "Yes."}), "Yes."),
        (events({"content": "<thi"}, {"content": "nk>Hm</th"}, {"content": "ink>Yes."}), "Yes."),
        (events({"content": "Hm."}, {"content": "</think>Yes."}), "Yes."),
        (events({"content": "a <"}), "a <"),
        (events(), ""),
        ([b'data: {"choices": [], "usage": {}}\r\n\r\n', *events({"content": "é"})], "é"),
        ([bytes([byte]) for byte in b"".join(events({"content": "Yes."}))], "Yes."),
        ([b": keep-alive\n\n", *events({"content": "Yes."})], "Yes."),
    ],
)
def test_a_stream_without_reasoning(serve, chunks, text):
    assert text_of(stream(serve(*chunks, kind="text/event-stream"))) == text


def test_a_server_that_does_not_stream_is_understood(serve):
    assert text_of(stream(serve(said({"content": "<think>Hm.</think>Yes."})))) == "Yes."


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>busy</html>", "sends no chat completion"),
        (b"data: nonsense\n\n", "sends no chat completion"),
        (b"data: []\n\n", "sends no chat completion"),
        (b'data: {"choices": [3]}\n\n', "sends no chat completion"),
        (b'data: {"error": {"message": "out of memory"}}\n\n', "reports an error: out of memory"),
    ],
)
def test_a_stream_of_something_else_is_one_line(serve, body, error):
    with pytest.raises(ChatError, match=error):
        stream(serve(body, kind="text/event-stream"))


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "think>", "a", " b", "\n", "</"])),
    st.randoms(use_true_random=False),
)
def test_the_filter_does_not_depend_on_how_text_is_cut(parts, chance):
    text = "".join(parts)
    filtered, shown, at = ReasoningFilter(), "", 0
    while at < len(text):
        size = chance.randint(1, 5)
        if piece := filtered.feed(text[at : at + size]):
            shown = piece.text if piece.restarts else shown + piece.text
        at += size
    shown += filtered.flush()
    assert shown == without_reasoning(text)


@given(st.lists(st.sampled_from(["<think>R</think>", "<THINKING>R R\n</THINKING>", "a", "b < c"])))
def test_the_filter_keeps_all_text_outside_of_blocks_and_none_within(parts):
    outside = "".join(part for part in parts if "R" not in part)
    assert without_reasoning("".join(parts)) == outside
    assert without_reasoning("".join([*parts, "<think>R"])) == outside
    assert without_reasoning("".join(["R", "</think>", *parts])) == outside


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("localhost:11434/v1", "does not begin with http"),
        ("ftp://localhost/v1", "does not begin with http"),
        ("file:///etc/passwd", "does not begin with http"),
        ("http://", "names no host"),
        ("http:///v1", "names no host"),
        ("http://a b/v1", "names no host"),
        ("http://localhost:port/v1", "is no valid URL"),
        ("http://localhost:99999/v1", "is no valid URL"),
        ("http://[::1/v1", "is no valid URL"),
        ("http://localhost/v1?key=1", "query or a fragment"),
        ("http://localhost/v1#top", "query or a fragment"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url, error):
    with pytest.raises(ChatError, match=f"^ETUDE_LLM_URL .*{error}.*must look like http://local"):
        ChatEndpoint(url, "m")


def test_a_password_in_the_url_is_refused_and_not_repeated():
    with pytest.raises(ChatError, match="user name or password") as caught:
        ChatEndpoint("https://ada:hunter2@example.org/v1", "m")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", ["new\nline", "schlüssel"])
def test_a_key_that_no_header_carries_is_refused_and_not_repeated(key):
    with pytest.raises(ChatError, match="ETUDE_LLM_KEY") as caught:
        ChatEndpoint("https://example.org/v1", "m", key)
    assert key not in str(caught.value)
    assert "secret" not in repr(ChatEndpoint("https://example.org/v1", "m", "secret"))


def test_the_environment_selects_the_endpoint(monkeypatch):
    for name in ("URL", "MODEL", "KEY"):
        monkeypatch.delenv(f"ETUDE_LLM_{name}", raising=False)
    assert ChatEndpoint.from_environment() is None
    monkeypatch.setenv("ETUDE_LLM_URL", " http://localhost:1/v1/ ")
    assert ChatEndpoint.from_environment() is None
    monkeypatch.setenv("ETUDE_LLM_MODEL", "qwen3:8b")
    monkeypatch.setenv("ETUDE_LLM_KEY", "k")
    assert ChatEndpoint.from_environment() == ChatEndpoint("http://localhost:1/v1", "qwen3:8b", "k")
    monkeypatch.setenv("ETUDE_LLM_URL", "nonsense")
    with pytest.raises(ChatError):
        ChatEndpoint.from_environment()
