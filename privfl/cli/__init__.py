"""The command line: arguments in, tables and progress out; every failure a message and an exit code."""

from privfl.cli.app import main

__all__ = ["main"]
