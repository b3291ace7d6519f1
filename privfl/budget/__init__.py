"""What may be spent: a budget and its filter, as values."""

from privfl.budget.filter import Budget, Filter

__all__ = ["Budget", "Filter"]
