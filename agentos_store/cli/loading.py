"""Commands that are imported when they are called: a shell asks for their names at each press of the tab key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Later:
    """A command, or a group of commands, that is not imported yet."""

    module: str
    """Below ``agentos_store.cli``."""
    attribute: str
    """The function of the command, or the group's Typer."""
    help: str
    """For the list of all commands: at most 60 characters."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """For the command's context."""

    def announce(self, name: str) -> TyperCommand:
        """Return what stands for the command in a list of commands."""
        return TyperCommand(name, help=self.help, rich_markup_mode=None)

    def load(self, name: str) -> Any:
        """Import the command."""
        found = getattr(import_module(f"agentos_store.cli.{self.module}"), self.attribute)
        # Typer makes its commands only as parts of an application.
        holder = typer.Typer(rich_markup_mode=None, add_completion=False)
        holder.callback()(_nothing)
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=name)
        else:
            holder.command(name, context_settings=dict(self.settings))(found)
        return typer.main.get_group(holder).commands[name]


def _nothing() -> None:
    """Be there, so that a single command stays a part of its group."""


class Commands(MutableMapping[str, Any]):
    """The commands of a group by name, imported when they are looked at."""

    def __init__(self, later: Mapping[str, Later], loaded: Mapping[str, Any]) -> None:
        self._later = dict(later)
        self._loaded = dict(loaded)

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._later[name].load(name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        self._later.pop(name, None)
        self._loaded.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._later, *self._loaded]))

    def __len__(self) -> int:
        return len({*self._later, *self._loaded})

    def announced(self, name: str) -> Any:
        """Return what a list needs of the command, without importing it; None when there is no such command."""
        if name in self._loaded or name not in self._later:
            return self._loaded.get(name)
        return self._later[name].announce(name)


class LazyGroup(TyperGroup):
    """A group of commands that are listed and completed without being imported."""

    later: ClassVar[Mapping[str, Later]] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands: Any = Commands(self.later, self.commands)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names."""
        del ctx
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return what a list needs of the command."""
        del ctx
        return self.commands.announced(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the arguments begin with, ready to be called."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else self.commands[name], rest
