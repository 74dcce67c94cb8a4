"""The design: factors, blocks, the configurations and trials that they come to, study files."""
