"""pytest fixtures; pytest finds this module by its `pytest11` entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flowcoro.app import Context
    from flowcoro.plugins import PluginHost

__all__ = ["app_context", "plugin_host"]


@pytest.fixture
def plugin_host() -> PluginHost:
    """A strict plugin host with the core's plugin only; `register` adds what is tested."""
    from flowcoro.testing import make_host

    return make_host()


@pytest.fixture
def app_context(plugin_host: PluginHost) -> Context:
    """A context over `plugin_host`, with every setting at its default."""
    from flowcoro.testing import make_context

    return make_context(plugins=plugin_host)
