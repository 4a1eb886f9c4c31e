"""Asking a run: conversations with base and tuned model side by side, or single predictions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from etude.app.conversations import ChatSettings, Conversation, Vote
from etude.app.conversing import Conversable, conversable, is_loading
from etude.app.trying import shown
from etude.core.errors import EtudeError, RunError
from etude.web.bench import Bench
from etude.web.events import positions
from etude.web.pages import render
from etude.web.rooms.lab.run_routes import run_of

router = APIRouter(prefix="/lab/runs/{name}/chat")
Texts = Annotated[list[str] | None, Form()]


def _open(bench: Bench, name: str) -> Conversable:
    run = run_of(bench, name)
    try:
        return conversable(run)
    except EtudeError as error:
        raise HTTPException(409, f"{str(error)[:1].upper()}{str(error)[1:]}.") from None


def _values(opened: Conversable, texts: list[str] | None) -> dict[str, str]:
    given = [text.replace("\r\n", "\n") for text in texts or ()]
    fields = opened.fields
    given += [""] * (len(fields) - len(given))
    return {field.name: text for field, text in zip(fields, given, strict=False)}


@router.get("")
def index(request: Request, bench: Bench, name: str) -> HTMLResponse:
    """Ask for a first message; list what was asked before."""
    return _index(request, _open(bench, name), ChatSettings())


def _index(
    request: Request,
    opened: Conversable,
    settings: ChatSettings,
    values: dict[str, str] | None = None,
    wrong: str = "",
) -> HTMLResponse:
    found = opened.kept.all()
    return render(
        request,
        "lab/chats.html",
        422 if wrong else 200,
        opened=opened,
        run=opened.run,
        found=found,
        tally=opened.kept.tally(found),
        settings=settings,
        values=values or {},
        wrong=wrong,
    )


@router.post("")
def begin(
    request: Request,
    bench: Bench,
    name: str,
    value: Texts = None,
    blind: Annotated[bool, Form()] = False,
    system: Annotated[str, Form(max_length=20_000)] = "",
    system_from: Annotated[str, Form(pattern="^(run|own)$")] = "run",
    temperature: Annotated[float, Form(ge=0, le=10, allow_inf_nan=False)] = 0.0,
    top_p: Annotated[float, Form(ge=0.01, le=1, allow_inf_nan=False)] = 1.0,
    seed: Annotated[int, Form(ge=0, lt=2**63)] = 0,
    max_new_tokens: Annotated[int, Form(ge=1, le=100_000)] = ChatSettings.max_new_tokens,
) -> Response:
    """Begin a conversation with its first message."""
    opened = _open(bench, name)
    own = system.replace("\r\n", "\n") if system_from == "own" else None
    settings = ChatSettings(
        blind and opened.compared, own, max_new_tokens, temperature, top_p, seed
    )
    values = _values(opened, value)
    try:
        made = opened.begin(settings, values)
    except RunError as error:
        return _index(request, opened, settings, values, str(error))
    return _to(name, made)


@router.get("/{chat}")
def show(
    request: Request, bench: Bench, name: str, chat: str, seen: Annotated[str, Query()] = ""
) -> HTMLResponse:
    """Show a conversation as far as it was written.

    Args:
        request: that is answered.
        bench: of the user.
        name: of the run.
        chat: of the conversation.
        seen: what was shown before: with another address a browser fetches the page anew, even if
            the link leads to a place in it.
    """
    del seen
    return _page(request, _open(bench, name), chat)


def _page(
    request: Request,
    opened: Conversable,
    chat: str,
    values: dict[str, str] | None = None,
    wrong: str = "",
) -> HTMLResponse:
    topic = f"chat/{opened.run.name}.{chat}"
    at = positions(request, topic).get(topic, "")
    one = _find(opened, chat)
    found = opened.kept.all()
    process = opened.process()
    content: dict[str, Any] = {
        "predictions": {
            (turn.number, answer.voice): shown(answer.prediction, turn.text)
            for turn in one.turns
            for answer in turn.answers
            if answer.prediction is not None
        }
    }
    return render(
        request,
        "lab/chat.html",
        422 if wrong else 200,
        opened=opened,
        run=opened.run,
        one=one,
        topic=topic,
        at=at,
        tally=opened.kept.tally(found),
        process=process,
        working=process is not None and process.condition == "running",
        loading=is_loading(process),
        values=values or {},
        wrong=wrong,
        **content,
    )


def _find(opened: Conversable, chat: str) -> Conversation:
    try:
        return opened.kept.find(chat)
    except RunError as error:
        raise HTTPException(404, f"{str(error)[:1].upper()}{str(error)[1:]}.") from None


@router.post("/{chat}/say")
def say(request: Request, bench: Bench, name: str, chat: str, value: Texts = None) -> Response:
    """Go on with a conversation."""
    opened = _open(bench, name)
    _find(opened, chat)
    values = _values(opened, value)
    try:
        opened.ask(chat, values)
    except RunError as error:
        return _page(request, opened, chat, values, str(error))
    return _to(name, chat)


@router.post("/{chat}/stop")
def stop(bench: Bench, name: str, chat: str) -> Response:
    """Stop the answers that are being written."""
    opened = _open(bench, name)
    _find(opened, chat)
    opened.stop(chat)
    return _to(name, chat)


@router.post("/{chat}/go-on")
def go_on(request: Request, bench: Bench, name: str, chat: str) -> Response:
    """Answer what was left unanswered when the process was killed, or failed."""
    opened = _open(bench, name)
    _find(opened, chat)
    try:
        opened.wake()
    except RunError as error:
        return _page(request, opened, chat, wrong=str(error))
    return _to(name, chat)


@router.post("/{chat}/vote")
def vote(
    request: Request,
    bench: Bench,
    name: str,
    chat: str,
    turn: Annotated[int, Form(ge=1)],
    vote: Annotated[Vote, Form()],
) -> Response:
    """Keep a vote on two answers."""
    opened = _open(bench, name)
    _find(opened, chat)
    try:
        opened.kept.vote(chat, turn, vote)
    except RunError as error:
        return _page(request, opened, chat, wrong=str(error))
    return _to(name, chat, f"turn-{turn}")


@router.post("/{chat}/delete")
def delete(request: Request, bench: Bench, name: str, chat: str) -> Response:
    """Delete a conversation."""
    opened = _open(bench, name)
    _find(opened, chat)
    try:
        opened.kept.remove(chat)
    except RunError as error:
        return _page(request, opened, chat, wrong=str(error))
    return RedirectResponse(f"/lab/runs/{name}/chat", 303)


def _to(name: str, chat: str, part: str = "now") -> Response:
    return RedirectResponse(f"/lab/runs/{name}/chat/{chat}#{part}", 303)
