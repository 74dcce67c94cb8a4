"""The experiment: designs, the ledger of what has been run, engines, and what comes out."""
