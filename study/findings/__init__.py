"""What the outcomes come to: means, statistics, comparisons."""
