"""The AIOS Storage Manager: its database ``aios.db``, and the log ``events.jsonl`` that it takes the place of."""
