"""Where the native core's headers and its CMake package lie, for extensions of others."""

from __future__ import annotations

from pathlib import Path

from flowcoro import _native

__all__ = ["get_cmake_dir", "get_include"]

# Beside the extension: that is where they were installed with it, in an editable install too.
_INSTALLED = Path(str(_native.__file__)).parent


def get_include() -> str:
    """Tell the folder to give to a compiler as an include path.

    It has `flowcoro/native_api.h`, for C and C++, and all headers of the native core (C++20).

    Returns:
        The folder's absolute path.

    Raises:
        FileNotFoundError: This installation has no headers.
    """
    return _folder("_include", "flowcoro/native_api.h")


def get_cmake_dir() -> str:
    """Tell the folder to give to CMake as `flowcoro_ROOT`, for `find_package(flowcoro CONFIG)`.

    The package has the targets `flowcoro::native_api` (C and C++) and `flowcoro::native` (C++20).

    Returns:
        The folder's absolute path.

    Raises:
        FileNotFoundError: This installation has no CMake package.
    """
    return _folder("_cmake", "flowcoroConfig.cmake")


def _folder(name: str, has: str) -> str:
    folder = _INSTALLED.resolve() / name
    if not (folder / has).is_file():
        raise FileNotFoundError(f"flowcoro: {folder / has} is not there: install flowcoro anew")
    return str(folder)
