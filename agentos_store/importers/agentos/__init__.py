"""The importer of AgentOS registries: ``registry`` reads one, and knows of the store its words and hashes alone."""
