"""The weights of models: which are published, which are on disk, how they are downloaded."""
