"""`python -m streamlearn.telemetry`: `docs/metrics.md`."""

import sys

from streamlearn.telemetry import reference

sys.stdout.write(reference())
