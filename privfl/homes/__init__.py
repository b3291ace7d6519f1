"""One folder per role: keys, sealed state, roster, policy, ledger and the binding of a site's data."""
