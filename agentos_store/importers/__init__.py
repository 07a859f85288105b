"""Importers: what older registries hold, brought into the store."""
