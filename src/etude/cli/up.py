"""`etude up`: open the web app."""

from __future__ import annotations

import gc
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.root import app

if TYPE_CHECKING:
    from etude.web.server import Running
    from etude.web.session import Password


@app.command(
    epilog="Examples:\n\n`etude up`\n\n`etude up --port 9000 --no-browser`\n\n`etude up --lan`"
)
def up(
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port; the next one that is free if it is taken."),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    lan: Annotated[
        bool,
        typer.Option(
            "--lan", help="Let other machines of the network in, by a password that is asked first."
        ),
    ] = False,
    runs: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
) -> None:
    """Open Etude in a browser: practise, papers, runs and models on one page each.

    It answers this machine only, and ends with Ctrl-C.
    """
    gc.disable()  # until all is imported: what imports leave behind is not garbage
    from etude.core.errors import LockHeldError
    from etude.core.extras import require_extra
    from etude.core.lock import FileLock

    require_extra("web", "`etude up`", "fastapi", "uvicorn", "markdown_it", "multipart")
    require_extra("web", "`etude up`", "sqlalchemy", "alembic")
    from etude.web import server

    lock = FileLock(server.folder() / "server.lock")
    try:
        lock.acquire()
    except LockHeldError as held:
        running = server.find_running()
        if running is None:
            raise server.WebError(
                f"process {held.pid} is starting or stopping Etude's server on this data folder; "
                "try again in a moment"
            ) from None
        _show_running(running, browser=browser)
        return
    try:
        _serve(port, runs, browser=browser, lan=lan)
    finally:
        server.withdraw()
        lock.release()


def _serve(port: int | None, runs: Path, *, browser: bool, lan: bool) -> None:
    from etude.app.workbench import open_workbench
    from etude.web import server
    from etude.web.app import LOCAL, create_app
    from etude.web.session import Password, Sessions, lasting_key

    password = Password(server.folder()) if lan else None
    if password is not None and not password.is_set():
        _choose_password(password)
    listener = server.listen("0.0.0.0" if lan else "127.0.0.1", port)
    number: int = listener.getsockname()[1]
    bench = open_workbench(runs=runs)
    running = server.announce(number, bench.runs)
    sessions = Sessions(lasting_key(server.folder()), bytes.fromhex(running.key))
    names = server.own_names() if lan else []
    web = create_app(bench, sessions, port=number, hosts=[*LOCAL, *names], password=password)
    gc.freeze()
    gc.enable()
    wanted = port or server.FIRST_PORT
    if number != wanted:
        typer.echo(f"Port {wanted} is taken, so this is port {number}.")
    address = typer.style(running.address, bold=True)
    typer.echo(f"Etude is at {address} {typer.style('Ctrl-C ends it', dim=True)}")
    for name in names if lan else ():
        if ":" not in name and name not in LOCAL:
            typer.echo(f"  on the network, by password and unencrypted: http://{name}:{number}/")

    def ready() -> None:
        _open(running, browser=browser)
        bench.begin_work()

    try:
        server.serve(web, [listener], ready)
    finally:
        bench.close()
    typer.echo("Etude's server has ended. Runs that were training go on.")


def _choose_password(password: Password) -> None:
    typer.echo("Other machines are let in by a password. Choose one of at least 10 characters.")
    while True:
        chosen = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        if len(chosen) >= 10:
            break
        typer.echo("That is shorter than 10 characters.")
    password.set(chosen)


def _show_running(running: Running, *, browser: bool) -> None:
    """Say which server is there, and open it."""
    since = datetime.fromtimestamp(running.started).strftime("%-d %B, %H:%M")
    typer.echo(
        f"Etude runs already at {running.address} (process {running.pid}, since {since}, runs in "
        f"{running.runs})."
    )
    _open(running, browser=browser)


def _open(running: Running, *, browser: bool) -> None:
    """Open a browser with a link that lets it in, or print that link."""
    import webbrowser

    link = running.launch_link()
    if not browser or not webbrowser.open(link):
        typer.echo(f"Open this link, which works once within ten minutes:\n  {link}")
