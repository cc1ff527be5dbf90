"""Pure machine learning: reward models and policies, from run directories. Knows no web and no database."""

import os

# Set before torch is loaded: waiting threads sleep instead of spinning, because the web server, the database
# and perhaps a second trainer live on the same cores. On two busy ones this made 30 seconds of 127.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
