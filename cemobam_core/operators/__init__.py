"""The operators of the models, one per file, each with its formula and its own optimisations."""
