"""A server that answers chats by a script, in place of a language model."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from etude.core.chat_client import ChatEndpoint


class Model:
    """Speaks OpenAI's chat completions as a stream; `script` makes the answer from the chat."""

    def __init__(self, script, status=200):
        self.asked = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                chat = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                model.asked.append((self.path, dict(self.headers), chat))
                self.send_response(status)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                text = script(chat["messages"])
                for at in range(0, len(text), 7):
                    piece = {"choices": [{"delta": {"content": text[at : at + 7]}}]}
                    self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        self.endpoint = ChatEndpoint(
            f"http://127.0.0.1:{self.server.server_port}/v1", "scripted-1", "key"
        )
