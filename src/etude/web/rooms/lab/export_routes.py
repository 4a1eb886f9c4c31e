"""What can be made of a run's adapter: begun, stopped, downloaded, deleted."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from etude.app.run_exports import begin_export, output_of, remove_export, stop_export
from etude.core.errors import RunError
from etude.web.bench import Bench
from etude.web.rooms.lab.run_routes import run_of, run_page

router = APIRouter(prefix="/lab/runs/{name}")
What = Annotated[str, Form(max_length=20)]


@router.post("/exports")
def begin(
    request: Request,
    bench: Bench,
    name: str,
    what: What,
    kind: Annotated[str, Form(max_length=40)],
    original: Annotated[bool, Form()] = False,
) -> Response:
    """Start to make a merged model, or a file for another program."""
    run = run_of(bench, name)
    try:
        begin_export(run, what, f"{kind}:original" if original else kind)
    except RunError as error:
        return run_page(request, bench, run, wrong=f"{str(error)[:1].upper()}{str(error)[1:]}.")
    return _back(name)


@router.post("/exports/stop")
def stop(bench: Bench, name: str, what: What) -> Response:
    """Stop making it."""
    stop_export(run_of(bench, name), what)
    return _back(name)


@router.post("/exports/delete")
def delete(request: Request, bench: Bench, name: str, what: What) -> Response:
    """Delete what was made."""
    run = run_of(bench, name)
    try:
        remove_export(run, what)
    except RunError as error:
        return run_page(request, bench, run, wrong=f"{str(error)[:1].upper()}{str(error)[1:]}.")
    return _back(name)


@router.get("/adapter.gguf")
def gguf(bench: Bench, name: str) -> Response:
    """Send the LoRA file for llama.cpp."""
    run = run_of(bench, name)
    file = output_of(run, "gguf")
    if not file.is_file():
        raise HTTPException(404, "It has not been made yet, or was deleted.")
    return _sent(file.open("rb").read, f"{run.name}.gguf", "application/octet-stream")


@router.get("/adapter.zip")
def adapter(bench: Bench, name: str) -> Response:
    """Send the adapter's files, in PEFT's format."""
    run = run_of(bench, name)
    if not run.adapter.is_dir():
        raise HTTPException(404, "This run has no adapter yet.")
    return _packed(run.adapter, run.name)


@router.get("/peft.zip")
def peft(bench: Bench, name: str) -> Response:
    """Send the adapter with its factors in float32."""
    run = run_of(bench, name)
    folder = output_of(run, "peft")
    if not folder.is_dir():
        raise HTTPException(404, "It has not been made yet, or was deleted.")
    return _packed(folder, f"{run.name}-float32")


def _packed(folder: Path, name: str) -> Response:
    packed = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is sent
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.is_symlink():
                archive.write(file, f"{name}/{file.name}")
    packed.seek(0)
    return _sent(packed.read, f"{name}.zip", "application/zip")


def _sent(read: Callable[[int], bytes], name: str, media_type: str) -> Response:
    chunks: Iterator[bytes] = iter(lambda: read(1 << 20), b"")
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Security-Policy": "sandbox",
    }
    return StreamingResponse(chunks, media_type=media_type, headers=headers)


def _back(name: str) -> Response:
    return RedirectResponse(f"/lab/runs/{name}#take", 303)
