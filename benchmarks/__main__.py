"""``python -m benchmarks``."""

from __future__ import annotations

if __name__ == "__main__":
    # A process that multiprocessing spawns imports this file again, and should not pay for the rest.
    from benchmarks.command import main

    main()
