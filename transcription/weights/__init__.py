"""The weights of models: which are published, which are here, how they are fetched."""
