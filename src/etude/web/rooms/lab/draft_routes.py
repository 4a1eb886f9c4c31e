"""Starting a run: data, then everything that is to be seen before the button is pressed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, HTTPException, Query, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from etude.app import drafts
from etude.app.models import list_models
from etude.core.errors import DataError, EtudeError
from etude.core.units import size
from etude.web.bench import Bench
from etude.web.events import positions
from etude.web.pages import render

router = APIRouter(prefix="/lab")
TASKS = (
    "auto",
    "chat",
    "text-classification",
    "language-modeling",
    "token-classification",
    "embedding",
)
ROWS = 20


@router.get("/new")
def new(request: Request) -> HTMLResponse:
    """Ask for data."""
    return _new(request, {})


@router.post("/new", max_body_size=drafts.LARGEST_UPLOAD + 1_000_000)
def make(
    request: Request,
    bench: Bench,
    file: Annotated[UploadFile | None, File()] = None,
    path: Annotated[str, Form(max_length=4000)] = "",
    task: Annotated[str, Form(max_length=40)] = "auto",
    model: Annotated[str, Form(max_length=1000)] = "",
    method: Annotated[str, Form(pattern="^(qlora|lora|full)$")] = "qlora",
) -> Response:
    """Store data that were sent, make a recipe for them, and begin to look at them."""
    typed = {"path": path, "task": task, "model": model, "method": method}
    sent = file is not None and bool(file.filename)
    if not sent and not path.strip():
        return _new(request, typed, "Choose a file, or name the path of one on this machine.")
    draft, place = drafts.begin_upload(file.filename or "" if file is not None else "")
    try:
        data = path.strip()
        if sent and file is not None:
            drafts.store_upload(place, iter(lambda: file.file.read(1 << 20), b""))
            data = str(place)
        drafts.make_draft(draft, data, task=task, model=model.strip() or None, method=method)
    except EtudeError as error:
        draft.remove()
        return _new(request, typed, str(error))
    draft.look(bench.runs)
    return RedirectResponse(f"/lab/new/{draft.id}", 303)


def _new(request: Request, typed: dict[str, str], wrong: str = "") -> HTMLResponse:
    return render(
        request,
        "lab/new.html",
        422 if wrong else 200,
        typed=typed,
        wrong=wrong,
        tasks=TASKS,
        models=list_models(),
        largest=size(drafts.LARGEST_UPLOAD),
    )


@router.get("/new/{draft}")
def show(
    request: Request,
    draft: str,
    q: Annotated[str, Query(max_length=1000)] = "",
    first: Annotated[int, Query(ge=0, le=10**9)] = 0,
    row: Annotated[str, Query(max_length=1000)] = "",
    model: Annotated[str, Query(max_length=1000)] = "",
) -> HTMLResponse:
    """Show a draft: the recipe, and what was seen of it; rows that are searched for."""
    return _draft(request, _found(draft), q=q, first=first, row=row, model=model)


def _found(name: str) -> drafts.Draft:
    try:
        return drafts.find_draft(name)
    except DataError as error:
        raise HTTPException(404, f"{str(error)[:1].upper()}{str(error)[1:]}.") from None


def _draft(
    request: Request,
    draft: drafts.Draft,
    *,
    q: str = "",
    first: int = 0,
    row: str = "",
    model: str = "",
    wrong: str = "",
) -> HTMLResponse:
    topic = f"draft/{draft.id}"
    at = positions(request, topic)
    seen = draft.seen()
    rows, masks, asked = seen["preview"].answer, seen["masks"].answer, ""
    try:
        if q or first:
            rows = drafts.rows_like(draft, q, first)
        if row or model:
            masks = drafts.masks_of(draft, [row] if row else [], model or None)
    except EtudeError as error:
        asked = str(error)
    form = draft.form()
    return render(
        request,
        "lab/draft.html",
        422 if wrong else 200,
        draft=draft,
        topic=topic,
        at=at.get(topic, ""),
        form=form,
        seen=seen,
        rows=rows,
        masks=masks,
        asked=asked,
        q=q,
        first=first,
        row=row,
        model=model,
        step=ROWS,
        wrong=wrong,
        ready=form.is_valid and all(one.answer is not None for one in seen.values()),
        pending=any(one.pending for one in seen.values()),
        models=list_models(),
    )


async def typed_fields(request: Request) -> dict[str, str]:
    """Return the fields of a form whose names are the recipe's keys."""
    return {key: str(value) for key, value in (await request.form()).items()}


@router.post("/new/{draft}/recipe")
def change(
    bench: Bench, draft: str, typed: Annotated[dict[str, str], Depends(typed_fields)]
) -> Response:
    """Change the recipe: by the form's fields, or, where the YAML was changed, by that."""
    from etude.app.recipe_form import write_form

    found = _found(draft)
    before, text = found.yaml, typed.pop("yaml", "").replace("\r\n", "\n")
    try:
        if text.strip() and text.strip() != before.strip():
            # Both may have been changed: the text first, then the fields that were changed too.
            fields = {f.key: f.value for group in found.form().groups.values() for f in group}
            changed = {k: v for k, v in typed.items() if k in fields and v != fields[k]}
            found.write(write_form(text, changed) if changed else text)
        else:
            found.write(write_form(before, typed))
    except EtudeError as error:
        if isinstance(error, DataError):
            raise
        found.write(text)
    if found.form().is_valid:
        found.look(bench.runs)
    return RedirectResponse(f"/lab/new/{found.id}", 303)


@router.post("/new/{draft}/look")
def look(bench: Bench, draft: str) -> Response:
    """Look again at what is not known: after the server was stopped meanwhile."""
    found = _found(draft)
    found.look(bench.runs)
    return RedirectResponse(f"/lab/new/{found.id}", 303)


@router.post("/new/{draft}/start")
def start(
    request: Request,
    bench: Bench,
    draft: str,
    ignore_memory: Annotated[bool, Form()] = False,
) -> Response:
    """Start the run, or put it into the queue."""
    found = _found(draft)
    try:
        run = found.start(bench.runs, ignore_memory=ignore_memory)
    except EtudeError as error:
        return _draft(request, found, wrong=str(error))
    return RedirectResponse(f"/lab/runs/{run.name}", 303)
