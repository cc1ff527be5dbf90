"""What is measured, and how to measure it again: each prints a table, with --json one object at the end."""
