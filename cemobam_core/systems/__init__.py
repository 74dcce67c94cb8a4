"""Systems: ways to label utterances, one a file."""
