"""Client for language models behind an OpenAI-compatible chat completions API.

Works with Ollama, vLLM, llama.cpp and hosted services. Environment variables select the model:

    ETUDE_LLM_URL    base URL, such as http://localhost:11434/v1
    ETUDE_LLM_MODEL  model name, such as qwen3:8b
    ETUDE_LLM_KEY    API key, sent as a bearer token; only where the server needs one

Only the answer of a model is returned. Its reasoning is dropped, whether the server sends it in
fields of its own (`reasoning_content`) or in the text between `<think>` and `</think>`.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import urlsplit

from etude.core.errors import ChatError, innermost_reason

if TYPE_CHECKING:
    from types import TracebackType

    import httpx

Message: TypeAlias = Mapping[str, str]
"""One message of a chat: `role` and `content`."""

_EXAMPLE: Final = "http://localhost:11434/v1"
_LONGEST_REASON: Final = 200
_THINK = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_PARTIAL_TAG = re.compile(r"<(?:/?[a-z]{0,8})?$", re.IGNORECASE)


@dataclass(frozen=True)
class ChatEndpoint:
    """Address of a model.

    Args:
        url: base URL, to which `/chat/completions` is appended. HTTP or HTTPS, without user name,
            password, query or fragment.
        model: name of the model at that address.
        key: API key; empty to send none.

    Raises:
        ChatError: the URL or the key cannot be used.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.strip().rstrip("/"))
        if problem := _url_problem(self.url):
            raise ChatError(f"ETUDE_LLM_URL {problem}; it must look like {_EXAMPLE}")
        # The key itself must not get into a message.
        if not self.key.isascii() or not self.key.isprintable():
            raise ChatError("ETUDE_LLM_KEY has characters that an HTTP header cannot carry")

    @classmethod
    def from_environment(cls) -> ChatEndpoint | None:
        """Return the endpoint that the environment selects; None unless URL and model are set.

        Raises:
            ChatError: a variable has a value that cannot be used.
        """
        url, model = os.environ.get("ETUDE_LLM_URL", ""), os.environ.get("ETUDE_LLM_MODEL", "")
        if not url or not model:
            return None
        return cls(url, model, os.environ.get("ETUDE_LLM_KEY", ""))


def _url_problem(url: str) -> str:
    """Return what is wrong with a base URL, or an empty string."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError as error:
        return f"is no valid URL ({error})"
    # A URL with a password is not repeated in the message.
    if "@" in parts.netloc:
        return "contains a user name or password; put the key in ETUDE_LLM_KEY"
    if parts.scheme not in {"http", "https"}:
        return f"is {url!r}, which does not begin with http:// or https://"
    if not host or not url.isprintable() or " " in url:
        return f"is {url!r}, which names no host"
    if parts.query or parts.fragment:
        return f"is {url!r}, which has a query or a fragment"
    return ""


@dataclass(frozen=True)
class Piece:
    """Part of an answer that is being streamed."""

    text: str
    restarts: bool = False
    """Whether the text yielded so far was reasoning, which this piece replaces.

    Some chat templates put the opening `<think>` in the prompt, so that only the closing tag shows
    that what came before it was reasoning.
    """


class ChatClient:
    """Sends chats to one endpoint. A context manager; one connection serves all its requests.

    Args:
        endpoint: the model that answers.
        timeout: seconds the server may stay silent.
        deadline: seconds a whole answer may take; `timeout` unless given.
        max_bytes: size from which an answer is refused.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        *,
        timeout: float = 60.0,
        deadline: float | None = None,
        max_bytes: int = 2**21,
    ) -> None:
        import httpx

        self.endpoint = endpoint
        self.deadline = timeout if deadline is None else deadline
        self.max_bytes = max_bytes
        headers = {"Accept-Encoding": "identity"}
        if endpoint.key:
            headers["Authorization"] = f"Bearer {endpoint.key}"
        self._client = httpx.Client(headers=headers, timeout=timeout)

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def complete(self, messages: Sequence[Message], *, temperature: float, max_tokens: int) -> str:
        """Return the answer to a chat, without reasoning.

        Raises:
            ChatError: the server cannot be reached, refuses, takes too long, or answers with
                something other than a chat completion with text.
        """
        with self._answer(messages, temperature, max_tokens, stream=False) as (_, chunks):
            return without_reasoning(self._whole(b"".join(chunks)))

    def stream(
        self, messages: Sequence[Message], *, temperature: float, max_tokens: int
    ) -> Iterator[Piece]:
        """Yield the answer to a chat as it is generated, without reasoning.

        Raises:
            ChatError: as for `complete`.
        """
        with self._answer(messages, temperature, max_tokens, stream=True) as (answer, chunks):
            if "json" in answer.headers.get("Content-Type", ""):  # a server that does not stream
                yield Piece(without_reasoning(self._whole(b"".join(chunks))))
                return
            filtered = ReasoningFilter()
            recognised = False
            for event in _events(chunks):
                recognised = True
                if event == "[DONE]":
                    break
                if piece := filtered.feed(self._delta(event)):
                    yield piece
            if not recognised:
                raise self._error("sends no chat completion")
            if rest := filtered.flush():
                yield Piece(rest)

    @contextmanager
    def _answer(
        self, messages: Sequence[Message], temperature: float, max_tokens: int, *, stream: bool
    ) -> Generator[tuple[httpx.Response, Iterator[bytes]]]:
        """Send a request; give the response and its body in chunks, both limits enforced."""
        import httpx

        body = {
            "model": self.endpoint.model,
            "messages": [dict(message) for message in messages],
            "stream": stream,
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        end = time.monotonic() + self.deadline
        try:
            with self._client.stream(
                "POST", f"{self.endpoint.url}/chat/completions", json=body
            ) as answer:
                chunks = self._limited(answer, end)
                if answer.status_code != 200:
                    raise self._refusal(answer, b"".join(chunks))
                yield answer, chunks
        except httpx.TimeoutException as error:
            raise self._error("does not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._error(f"cannot be reached: {innermost_reason(error)}") from error

    def _limited(self, answer: httpx.Response, end: float) -> Iterator[bytes]:
        size = 0
        for chunk in answer.iter_bytes():
            size += len(chunk)
            if size > self.max_bytes:
                raise self._error(f"sends more than {self.max_bytes:,} bytes")
            if time.monotonic() > end:
                raise self._error(f"takes longer than {self.deadline:g} s for one answer")
            yield chunk

    def _whole(self, body: bytes) -> str:
        """Return the text of a chat completion."""
        parsed = self._parsed(body)
        try:
            content: Any = parsed["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise self._error("sends no chat completion") from None
        text = _text(content)
        if text is None:
            raise self._error("sends a chat completion without text")
        return text

    def _delta(self, event: str) -> str:
        """Return the text that one event of a stream adds."""
        parsed = self._parsed(event)
        try:
            # Events without choices carry usage figures.
            choices: list[Any] = parsed.get("choices") or [{}]
            delta: dict[str, Any] = choices[0].get("delta") or {}
            content = delta.get("content")
        except (AttributeError, KeyError, IndexError, TypeError):
            raise self._error("sends no chat completion") from None
        return _text(content) or ""

    def _parsed(self, body: bytes | str) -> Any:
        try:
            parsed: Any = json.loads(body)
        except (ValueError, RecursionError):
            raise self._error("sends no chat completion") from None
        if reason := _error_message(parsed):
            raise self._error(f"reports an error: {reason}")
        return parsed

    def _refusal(self, answer: httpx.Response, body: bytes) -> ChatError:
        try:
            reason = _error_message(json.loads(body))
        except (ValueError, RecursionError):
            reason = ""
        reason = reason or _one_line(body.decode(errors="replace"))
        status = f"{answer.status_code} {_one_line(answer.reason_phrase)}".rstrip()
        return self._error(f"answers {status}" + (f": {reason}" if reason else ""))

    def _error(self, what: str) -> ChatError:
        return ChatError(f"the model at {self.endpoint.url} {what}")


class ReasoningFilter:
    """Removes reasoning, and space before the answer, from text in pieces of any size."""

    def __init__(self) -> None:
        self._thinking = False
        self._kept = False  # whether any text was passed on
        self._rest = ""

    def feed(self, text: str) -> Piece | None:
        """Take the next piece of text; return what of it, and of earlier ones, can be shown."""
        self._rest += text
        shown, restarts = "", False
        while tag := _THINK.search(self._rest):
            if not self._thinking:
                shown += self._rest[: tag.start()]
            self._rest = self._rest[tag.end() :]
            if tag[1] and not self._thinking:
                # No opening tag: all that came before was reasoning.
                shown, restarts = "", restarts or self._kept
            self._thinking = not tag[1]
        tail = _PARTIAL_TAG.search(self._rest)
        cut = tail.start() if tail else len(self._rest)
        if not self._thinking:
            shown += self._rest[:cut]
        self._rest = self._rest[cut:]
        if restarts or not self._kept:
            shown = shown.lstrip()
        self._kept = bool(shown) or (self._kept and not restarts)
        return Piece(shown, restarts) if shown or restarts else None

    def flush(self) -> str:
        """Return what was held back because it might have begun a tag."""
        rest, self._rest = self._rest, ""
        return "" if self._thinking else rest


def without_reasoning(text: str) -> str:
    """Return an answer without `<think>` blocks, closed or not."""
    filtered = ReasoningFilter()
    piece = filtered.feed(text)
    return (piece.text if piece else "") + filtered.flush()


def _events(chunks: Iterator[bytes]) -> Iterator[str]:
    """Yield the data of each server-sent event that has any."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from _data(lines)
    yield from _data([rest])


def _data(lines: Sequence[bytes]) -> Iterator[str]:
    for line in lines:
        if line.startswith(b"data:") and (data := line[5:].strip()):
            yield data.decode(errors="replace")


def _text(content: Any) -> str | None:
    """Return the text of a message's content, a string or a list of typed parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts: list[str] = []
    for part in cast("list[Any]", content):
        if isinstance(part, dict):
            fields = cast("dict[str, Any]", part)
            if fields.get("type") == "text" and isinstance(fields.get("text"), str):
                texts.append(fields["text"])
    return "".join(texts)


def _error_message(parsed: Any) -> str:
    """Return the message of an error object, on one line; empty where there is none."""
    if not isinstance(parsed, dict):
        return ""
    error: Any = cast("dict[str, Any]", parsed).get("error")
    if isinstance(error, dict):
        fields = cast("dict[str, Any]", error)
        error = fields.get("message") or fields
    return _one_line(str(error)) if error else ""


def _one_line(text: str) -> str:
    """Return text of a server fit for a terminal: printable, on one line, not long."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text[:2000])
    return " ".join(printable.split())[:_LONGEST_REASON]
