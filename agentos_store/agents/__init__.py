"""Agents: the table that tasks refer to."""
