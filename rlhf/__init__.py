"""Pure machine learning: reward models and policies, from run directories. Knows no web and no database."""

import os

# Before torch is loaded: a waiting thread sleeps instead of spinning, because the web server, the database and a
# second trainer may live on the same cores. On two busy cores this is the difference between 30 and 127 seconds.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
