"""The model's operators, one a file, each with its formula; an operator is fast by itself."""
