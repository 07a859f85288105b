"""Speed, measured side by side: the library, the drivers alone, and SQLAlchemy written by hand.

``python -m benchmarks`` runs everything and writes ``RESULTS.md``.
"""
