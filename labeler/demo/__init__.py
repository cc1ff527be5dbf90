"""The demo project "Pelican jokes": what made it, and what it ships."""

from pathlib import Path

HERE = Path(__file__).parent
