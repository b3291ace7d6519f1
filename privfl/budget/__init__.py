"""What may be spent and what was: policies, the filter, and a site's ledger."""

from privfl.budget.charge import Account, Charge, ColumnUse, Proposal, Purpose
from privfl.budget.filter import Budget, Filter
from privfl.budget.limits import Limits
from privfl.budget.mandate import Mandate
from privfl.budget.memory import MemoryAccount
from privfl.budget.policy import WITHOUT_NOISE, Policy
from privfl.budget.policy_file import InvalidPolicy
from privfl.budget.signed import SignedPolicy, check_succession, read_policy

__all__ = [
    "WITHOUT_NOISE",
    "Account",
    "Budget",
    "Charge",
    "ColumnUse",
    "Filter",
    "InvalidPolicy",
    "Limits",
    "Mandate",
    "MemoryAccount",
    "Policy",
    "Proposal",
    "Purpose",
    "SignedPolicy",
    "check_succession",
    "read_policy",
]
