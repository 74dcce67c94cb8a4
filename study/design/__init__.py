"""The design of a study: factors, blocks, their configurations and trials, and study files."""
