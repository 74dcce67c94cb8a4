"""Training and evaluation: the training loop, stacks of models, CUDA graphs and metrics."""
