"""What is known of a file."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["FileInfo"]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What `stat` tells of a file.

    Attributes:
        size: in bytes.
        inode: its number on its device.
        device: the device that it lies on.
        mode: its kind and its permissions, as `os.stat_result.st_mode`.
        links: how many names it has.
        owner: the user's number.
        group: the group's number.
        modified_ns: when its content changed last, in nanoseconds since the Unix epoch.
        accessed_ns: when it was read last, as far as the file system notes that.
        changed_ns: when its metadata changed last.
    """

    size: int
    inode: int
    device: int
    mode: int
    links: int
    owner: int
    group: int
    modified_ns: int
    accessed_ns: int
    changed_ns: int

    @classmethod
    def of(cls, result: os.stat_result) -> FileInfo:
        """Take what `os.stat` returns."""
        return cls(
            result.st_size,
            result.st_ino,
            result.st_dev,
            result.st_mode,
            result.st_nlink,
            result.st_uid,
            result.st_gid,
            result.st_mtime_ns,
            result.st_atime_ns,
            result.st_ctime_ns,
        )

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link, which was not followed."""
        return stat.S_ISLNK(self.mode)

    @property
    def permissions(self) -> int:
        """The permission bits of `mode`."""
        return stat.S_IMODE(self.mode)

    @property
    def modified(self) -> datetime:
        """When its content changed last, in UTC."""
        return datetime.fromtimestamp(self.modified_ns / 1e9, UTC)
