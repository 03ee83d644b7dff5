"""Notes: a table, a component that owns it, and a JSON API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Self

import msgspec

from flowcoro import Component
from flowcoro_db import Database
from flowcoro_http import HttpError, Query, Router

TEXT_LIMIT = 2000

# SQLite's integers have 64 bits; a longer one is a wrong request, not a failure.
NoteId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class NewNote(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /api/notes` takes."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_LIMIT)]


class Note(msgspec.Struct):
    """A note as the API shows it."""

    id: int
    text: str
    created: str


class NotesStore(Component):
    """The notes, kept in a table that is made on the first start."""

    name = "notes"
    requires = (Database,)

    def __init__(self, db: Database) -> None:
        self._db = db

    async def __aenter__(self) -> Self:
        await self._db.execute(
            "CREATE TABLE IF NOT EXISTS notes"
            " (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, created TEXT NOT NULL)"
        )
        return self

    async def add(self, text: str) -> Note:
        """Keep a note."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = await self._db.fetch_one(
            "INSERT INTO notes (text, created) VALUES ($1, $2) RETURNING id, text, created",
            text,
            now,
            as_=Note,
        )
        assert row is not None
        return row

    async def newest(self, limit: int) -> list[Note]:
        """Return at most `limit` notes, the newest first."""
        return await self._db.fetch(
            "SELECT id, text, created FROM notes ORDER BY id DESC LIMIT $1", limit, as_=Note
        )

    async def remove(self, note_id: int) -> bool:
        """Forget a note; tell whether it was there."""
        return await self._db.execute("DELETE FROM notes WHERE id = $1", note_id) > 0


def notes_routes() -> Router:
    """The JSON API of the notes."""
    router = Router(tags=["notes"])

    @router.get("/notes")
    async def list_notes(
        notes: NotesStore,
        limit: Annotated[int, msgspec.Meta(ge=1, le=500), Query()] = 100,
    ) -> list[Note]:
        """List notes, the newest first."""
        return await notes.newest(limit)

    @router.post("/notes", status=201)
    async def add_note(note: NewNote, notes: NotesStore) -> Note:
        """Keep a note."""
        return await notes.add(note.text)

    @router.delete("/notes/{note_id:int}", status=204)
    async def remove_note(note_id: NoteId, notes: NotesStore) -> None:
        """Forget a note."""
        if not await notes.remove(note_id):
            raise HttpError(404, f"there is no note {note_id}")

    return router
