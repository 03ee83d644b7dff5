"""Checksums of all files below a directory, many at once, and whether they are still the same.

    python checksums.py DIRECTORY

The first time it writes `checksums.json` there; later it tells what differs, and then ends with
status 1. A file of any size is read piece by piece, and no disk blocks the loop.
"""

import hashlib
import json
import os
import sys

import anyio

import flowcoro
from flowcoro.io import Directory, File, write_atomic

REPORT = "checksums.json"
PIECE = 1 << 20
AT_ONCE = 32


async def checksum(path: str) -> str:
    digest = hashlib.sha256()
    async with File.open(path, "rb") as file:
        while piece := await file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


async def checksums(directory: Directory) -> dict[str, str]:
    found: dict[str, str] = {}
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def add(path: str) -> None:
        name = path.removeprefix(directory.path).lstrip(os.sep)
        async with limit:
            try:
                found[name] = await checksum(path)
            except OSError as error:  # which names the file
                print(error, file=sys.stderr)

    async with anyio.create_task_group() as group:
        async for _, entries in directory.walk():
            for entry in entries:
                if entry.is_file and entry.name != REPORT:
                    group.start_soon(add, entry.path)
    return dict(sorted(found.items()))


async def main(path: str) -> int:
    directory = Directory(path)
    report = os.path.join(path, REPORT)
    now = await checksums(directory)
    try:
        async with File.open(report) as file:
            before = json.loads(await file.read())
    except FileNotFoundError:
        # However this ends, there is a whole report or none.
        await write_atomic(report, json.dumps(now, indent=2) + "\n")
        print(f"{len(now)} files")
        return 0
    differing = [name for name in before | now if before.get(name) != now.get(name)]
    for name in differing:
        print("new" if name not in before else "gone" if name not in now else "changed", name)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(flowcoro.run(main(sys.argv[1])))
