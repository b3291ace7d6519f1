"""Plain FedAvg's ClientApp as it is."""

from __future__ import annotations

import plain_fedavg as plain  # type: ignore[import-not-found]
from counted import Counted  # type: ignore[import-not-found]

client = Counted(plain.client)
