"""The ledger: outcomes, the Optuna storage that keeps them, and leases."""
