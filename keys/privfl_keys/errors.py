"""The root of privfl's one error tree.

::

    PrivflError
    ├── Misuse              your call or configuration is wrong; nothing was done
    │   └── KeyStoreError   wrong passphrase, existing file, unreadable store
    ├── Theirs              a peer misbehaved or its bytes are not what they claim
    │   ├── Malformed       bytes that are not a canonical encoding
    │   └── Unverified      a signature, seal, roster or proof does not verify
    ├── WireError           a message or body could not be carried
    └── Refused             policy, budget or protocol rules forbid it

The type carries the blame; the message names the cause and the next step, and never a secret.
"""

from __future__ import annotations


class PrivflError(Exception):
    """Base of every error raised on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 1


class Misuse(PrivflError):
    """The caller asked for something that cannot be done as asked; the message says what to change."""

    exit_code = 2


class KeyStoreError(Misuse):
    """A key store could not be opened or written; the file on disk is unchanged."""


class Theirs(PrivflError):
    """A peer's message breaks the protocol; it is refused and the state is unchanged."""

    exit_code = 3


class Malformed(Theirs):
    """Bytes that are not the canonical encoding of what they should be."""


class Unverified(Theirs):
    """A signature, seal, roster or proof that does not verify."""


class WireError(PrivflError):
    """A message or a body could not be carried; retrying may help."""

    exit_code = 4


class Refused(PrivflError):
    """A rule of policy, budget or protocol forbids the request; nothing was spent or sent."""

    exit_code = 5
