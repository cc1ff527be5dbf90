"""Loading the large libraries. Nothing of what they make is ever garbage, and looking for some among it over
and over takes a fifth of the time."""

import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Let the collector rest, and afterwards pass over what is there by then. Once: what is loaded first."""
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
