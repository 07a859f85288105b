"""The importer of KODE's JSONStore directories: ``directory`` reads one, and knows nothing of the store it is for."""
