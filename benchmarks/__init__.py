"""What is measured, and how to measure it again: `python -m benchmarks.NAME [--json]`.

Some start the real thing (`bin/up` in a temporary home, installation.py) and end it; some train beside a peer
(trials.py) or let a demo run over some seeds (seeds.py). Times are of this machine and of what else it did
meanwhile: the load when a measurement began is told with it.
"""
