"""Quintet's web app: accounts, projects, ranking, runs and their pages. It never imports torch."""

__version__ = "0.1.0"
