"""What may be spent and what was: policies, the filter, and a site's ledger."""

from privfl.budget.charge import Account, Charge, ColumnUse, Proposal, Purpose
from privfl.budget.filter import Budget, Filter
from privfl.budget.ledger import Ledger
from privfl.budget.ledger_book import Book
from privfl.budget.ledger_check import LedgerReport, match_transcripts, read_ledger, verify_file
from privfl.budget.ledger_entries import Anchor, Entry, Kind, Opening
from privfl.budget.ledger_export import export_json, verify_export
from privfl.budget.ledger_plot import epsilon_at, history, picture, text_plot
from privfl.budget.limits import Limits
from privfl.budget.mandate import Mandate
from privfl.budget.memory import MemoryAccount
from privfl.budget.policy import WITHOUT_NOISE, Policy
from privfl.budget.policy_file import InvalidPolicy
from privfl.budget.signed import SignedPolicy, check_succession, read_policy

__all__ = [
    "WITHOUT_NOISE",
    "Account",
    "Anchor",
    "Book",
    "Budget",
    "Charge",
    "ColumnUse",
    "Entry",
    "Filter",
    "InvalidPolicy",
    "Kind",
    "Ledger",
    "LedgerReport",
    "Limits",
    "Mandate",
    "MemoryAccount",
    "Opening",
    "Policy",
    "Proposal",
    "Purpose",
    "SignedPolicy",
    "check_succession",
    "epsilon_at",
    "export_json",
    "history",
    "match_transcripts",
    "picture",
    "read_ledger",
    "read_policy",
    "text_plot",
    "verify_export",
    "verify_file",
]
