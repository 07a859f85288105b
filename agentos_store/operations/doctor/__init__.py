"""The doctor: what is wrong or weak with a database, what comes of it, and what to do.

One file for each room: ``file`` and ``inside`` look at an SQLite file, ``server``, ``load`` and ``tables`` at a
PostgreSQL server, ``schema`` and ``data`` at what both have. A check is a function that yields findings; ``rounds``
makes one after another. Nothing is changed: what is asked only reads, and is given up when it takes too long.
"""

from agentos_store.operations.doctor.report import Diagnosis, Finding
from agentos_store.operations.doctor.rounds import diagnose, examine

__all__ = ["Diagnosis", "Finding", "diagnose", "examine"]
