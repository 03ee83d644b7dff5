"""A small real application: notes in SQLite, a live chat, a page about itself.

`flowcoro demo` serves it; `flowcoro run app:app` in this folder does too. It uses public
names of FlowCoro only, so each piece is an example of how to do it.
"""

from __future__ import annotations

from pathlib import Path

from chat import Chat, chat_routes
from flowcoro import App
from flowcoro_db import Database
from flowcoro_http import HttpServer, Response, Router
from notes import NotesStore, notes_routes
from status import status_routes

PAGES = Path(__file__).resolve().parent / "pages"


def page_routes() -> Router:
    """Serve the two pages and what they load."""
    router = Router()

    @router.get("/", in_schema=False)
    async def index() -> Response:
        return Response.html((PAGES / "index.html").read_text(encoding="utf-8"))

    @router.get("/status", in_schema=False)
    async def status() -> Response:
        return Response.html((PAGES / "status.html").read_text(encoding="utf-8"))

    @router.get("/live.css", in_schema=False)
    async def style() -> Response:
        text = (PAGES / "live.css").read_text(encoding="utf-8")
        return Response(text, content_type="text/css; charset=utf-8")

    @router.get("/live.js", in_schema=False)
    async def script() -> Response:
        text = (PAGES / "live.js").read_text(encoding="utf-8")
        return Response(text, content_type="text/javascript; charset=utf-8")

    return router


def create_app(directory: Path = Path()) -> App:
    """Make the application.

    Args:
        directory: where the notes are kept, in `flowcoro-demo.db`.
    """
    router = Router(title="FlowCoro live demo", version="1.0")
    router.include("", page_routes())
    router.include("/api", notes_routes())
    router.include("", chat_routes())
    router.include("/api", status_routes())
    database = Database(f"sqlite:///{directory.resolve() / 'flowcoro-demo.db'}")
    return App(database, NotesStore(database), Chat(), HttpServer(router), name="live demo")


def app() -> App:
    """Make the application with its data in the current folder."""
    return create_app()
