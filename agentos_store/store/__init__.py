"""The two faces of an open database, and the only place where bodies meet it.

``blocking`` has ``Store``, ``asynchronous`` has ``AsyncStore``; each is loaded by whoever asks for it, for asyncio
alone takes as long to import as a small library.
"""
