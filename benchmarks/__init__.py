"""What is measured, and how to measure it again: `python -m benchmarks.NAME [--json]`.

Each starts the real thing (`bin/up` in a temporary home) and ends it. Times are of this machine and of what
else it did meanwhile: the load when a measurement began is told with it.
"""
