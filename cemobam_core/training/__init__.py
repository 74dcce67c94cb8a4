"""Training and evaluation: the loop, stacks of models, CUDA graphs, metrics."""
