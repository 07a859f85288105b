"""Bringing a store elsewhere: from SQLite to PostgreSQL and back, into an archive and out of it.

What is moved are rows in a form that both databases share. A *source* gives all of them at one moment, in the order of
their keys: a database (``sources.snapshot``) or an archive. ``move`` brings them into a database, which cannot be
opened before all of them are there and were read back; a move that was killed goes on where it stopped.
"""
