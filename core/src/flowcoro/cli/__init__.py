"""The `flowcoro` command line.

Layers: `_command` and `_target_kind` (what plugins describe; they import nothing), `_root`
(finding commands), then one module per command, imported only when that command runs.
"""

from flowcoro.cli._command import BUILT_IN, Command
from flowcoro.cli._target_kind import TargetKind

__all__ = ["BUILT_IN", "Command", "TargetKind", "main"]


def main() -> None:
    """Run the command line; the entry point of the `flowcoro` script."""
    from flowcoro.cli._root import root

    root(prog_name="flowcoro")
