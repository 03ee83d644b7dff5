"""The `flowcoro` command line.

Layers: `_command` (what a command is; imports nothing), `_root` (finding commands),
then one module per command, imported only when that command runs.
"""

from flowcoro.cli._command import BUILT_IN, Command

__all__ = ["BUILT_IN", "Command", "main"]


def main() -> None:
    """Run the command line; the entry point of the `flowcoro` script."""
    from flowcoro.cli._root import root

    root(prog_name="flowcoro")
