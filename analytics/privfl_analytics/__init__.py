"""Federated analytics over privfl's engine; arrives with the analytics release."""
