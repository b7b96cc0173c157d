"""What training lifted networks costs, measured. ``python -m benchmarks --help``."""
