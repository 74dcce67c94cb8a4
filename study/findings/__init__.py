"""Findings from the outcomes of trials: means, statistics and comparisons."""
