"""What may be spent and what was: policies, the filter, and a site's ledger."""

from privfl.budget.charge import Account, Charge, ColumnUse, Proposal, Purpose
from privfl.budget.filter import Budget, Filter
from privfl.budget.limits import Limits
from privfl.budget.memory import MemoryAccount

__all__ = ["Account", "Budget", "Charge", "ColumnUse", "Filter", "Limits", "MemoryAccount", "Proposal", "Purpose"]
