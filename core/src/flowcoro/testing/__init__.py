"""What tests of applications and plugins need.

`make_host` and `make_context` give a plugin host with autoload off and a context to
attach components to. `flowcoro.testing.contracts` holds the contract suite of each of
the core's extension points. The pytest plugin (`flowcoro.testing.pytest_plugin`) is
found by pytest itself and offers the fixtures `plugin_host` and `app_context`.

Features ship the suites of their own extension points in their own `testing` module.
"""

from flowcoro.testing._host import make_context, make_host

__all__ = ["make_context", "make_host"]
