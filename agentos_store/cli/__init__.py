"""The command line: ``agentos-store``."""

from __future__ import annotations

from agentos_store.cli.app import main

__all__ = ["main"]
