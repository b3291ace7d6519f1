"""The same app's ClientApp made private: one line around it."""

from __future__ import annotations

import plain_fedavg as plain  # type: ignore[import-not-found]
from counted import Counted  # type: ignore[import-not-found]

from privfl.flower import private

client = Counted(private(plain.client))
