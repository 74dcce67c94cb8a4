"""The studies of papers, as data: a folder each."""
