"""Finds the links of a page that lead nowhere.

    python check_links.py URL

It gets the page, then whatever that links to, all at once over few connections, and prints what is
broken; then it ends with status 1. Servers that are busy are asked again.
"""

import asyncio
import re
import sys
from urllib.parse import urldefrag, urljoin

import httpx

import flowcoro
from flowcoro_http import HttpClient, RetryPolicy

LINK = re.compile(r"""href=["']([^"']+)""")


async def problem(client: HttpClient, url: str) -> str | None:
    """Return what is wrong with a page; None when it is there."""
    try:
        response = await client.fetch(url, "HEAD")
    except (httpx.HTTPError, TimeoutError) as error:
        return str(error) or type(error).__name__
    return None if response.ok else f"status {response.status}"


async def broken_links(client: HttpClient, page: str) -> dict[str, str]:
    response = await client.fetch(page)
    links = {urldefrag(urljoin(page, link)).url for link in LINK.findall(response.text())}
    wanted = sorted(link for link in links if link.startswith(("http://", "https://")))
    problems = await asyncio.gather(*[problem(client, link) for link in wanted])
    return {link: what for link, what in zip(wanted, problems, strict=True) if what}


async def main(page: str) -> int:
    async with HttpClient(
        timeout=10,
        connect_timeout=3,
        max_connections=20,
        max_connections_per_origin=5,
        retries=RetryPolicy(retries=2, longest_retry_after=5),
    ) as client:
        broken = await broken_links(client, page)
    for link, what in broken.items():
        print(f"{link}: {what}")
    return 1 if broken else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python check_links.py URL")
    sys.exit(flowcoro.run(main(sys.argv[1])))
