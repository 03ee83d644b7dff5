"""SQLAlchemy's asyncio extension on the native loop, over asyncpg and aiosqlite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import ForeignKey, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list[Book]] = relationship(back_populates="author", order_by="Book.id")


class Book(Base):
    __tablename__ = "book"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


@pytest.fixture(params=["asyncpg", "aiosqlite"])
async def engine(request: pytest.FixtureRequest, tmp_path: object) -> AsyncIterator[AsyncEngine]:
    if request.param == "asyncpg":
        server = request.getfixturevalue("postgres_url").partition("://")[2]
        engine = create_async_engine(f"postgresql+asyncpg://{server}", pool_size=4)
    else:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/test.db")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


async def test_objects_and_relations(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        books = [Book(title=f"Part {number}") for number in range(200)]
        session.add(Author(name="Proust", books=books))
    async with AsyncSession(engine) as session:
        wanted = select(Author).options(selectinload(Author.books))
        author = (await session.scalars(wanted)).one()
        assert [book.title for book in author.books][-1] == "Part 199"
        streamed = await session.stream_scalars(select(Book.id).order_by(Book.id))
        assert len([row async for row in streamed]) == 200


async def test_what_fails_is_rolled_back(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add_all([Author(name="one"), Author(name="one")])
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.rollback()
        assert await session.scalar(select(func.count()).select_from(Author)) == 0


async def test_many_at_once_and_one_cancelled(engine: AsyncEngine) -> None:
    async def ask(number: int) -> int:
        async with engine.connect() as connection:
            found: int = (await connection.execute(text(f"SELECT {number}"))).scalar_one()
            return found

    assert await asyncio.gather(*map(ask, range(50))) == list(range(50))
    task = asyncio.create_task(ask(1))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ask(2) == 2
