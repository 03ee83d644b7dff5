"""The example of the guide to HTTP clients runs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from flowcoro_http import HttpServer, Response, Router

EXAMPLE = Path(__file__).parents[1] / "docs/examples/http/check_links.py"
PAGE = """
<a href="/good">good</a> <a href='/good#part'>the same</a> <a href="busy">busy</a>
<a href="/missing">missing</a> <a href="http://127.0.0.1:1/">nobody</a> <a href="mailto:a@b">us</a>
"""


async def test_it_tells_what_leads_nowhere() -> None:
    asked: list[str] = []
    router = Router()

    @router.get("/page")
    async def page() -> Response:
        return Response.html(PAGE)

    @router.get("/good")
    async def good() -> str:
        asked.append("good")
        return "here"

    @router.get("/busy")
    async def busy() -> Response:
        asked.append("busy")
        return Response("", status=503 if asked.count("busy") < 2 else 200)

    async with HttpServer(router, host="127.0.0.1", port=0) as server:
        program = await asyncio.create_subprocess_exec(
            sys.executable, str(EXAMPLE), f"{server.url}/page", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await program.communicate()
        lines = out.decode().splitlines()
        assert program.returncode == 1
        assert lines[0].startswith("http://127.0.0.1:1/: ")
        assert lines[1:] == [f"{server.url}/missing: status 404"]
        assert sorted(asked) == ["busy", "busy", "good"]

        program = await asyncio.create_subprocess_exec(
            sys.executable, str(EXAMPLE), f"{server.url}/good"
        )
        assert await program.wait() == 0
