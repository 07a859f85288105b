"""Agents: what they are, what they keep, what they were, and their forks."""
