"""The importer of AgentOS registries: ``registry`` reads one, and knows nothing of the store it is read for."""
