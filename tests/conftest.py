"""One setting for the whole suite: continuous integration repeats the examples that it has seen pass."""

from __future__ import annotations

import os

from hypothesis import settings

# Elsewhere every run draws new examples; a submission is not to fail by one that nobody could have seen before.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
