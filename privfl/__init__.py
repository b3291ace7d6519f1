"""privfl: privacy-hardened federated learning and federated analytics."""
