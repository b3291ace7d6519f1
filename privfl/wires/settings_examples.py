"""A ``federation.yaml`` of each kind, with every field and a comment: what ``privfl wire example`` prints."""

from __future__ import annotations

import re
from typing import Final

from privfl.errors import Misuse

__all__ = ["EXAMPLES", "example"]

_HEAD = """\
# One file for all members of the federation, and the same one for each. No secret is in it.
federation: {federation}
wire:
"""
_FOLDER = """\
  kind: folder
  # A directory that every member's user can read and write; a relative path is taken from this file.
  path: wire
"""
_AWS = """\
  kind: aws
  region: eu-central-1
  # The bucket for bodies; its name must be free in all of S3.
  bucket: {slug}-bodies
  # What the queues' names begin with; several federations may share an account.
  prefix: privfl
  # Whose account it is (12 digits, in quotes): queues and buckets of others are then never used.
  # account: "123456789012"
  # The key that encrypts bodies and messages; without one S3's and SQS's own.
  # kms_key: alias/privfl-{slug}
  # A role to assume first; {{name}} stands for the member's name. ExternalId and tags go with it.
  # role: arn:aws:iam::123456789012:role/privfl-{{name}}
  # external_id: agreed-with-the-owner-of-the-account
  # session_tags: {{project: readmission}}
  # A profile of the local AWS configuration, if another than the default.
  # profile: hospital
  # A private link or an emulator; without it AWS's own addresses.
  # endpoint: https://vpce-0123456789abcdef0.example.com
  # Seconds until a message whose reader died is delivered again.
  visibility: 30
  # Seconds that SQS holds a question back while nothing is there.
  poll: 20
  # MiB; a longer body is written in parts, several at once.
  part_mib: 64
  # Days that bodies are kept at most.
  retain_days: 14
"""
_FLOWER = """\
  kind: flower
  # Seconds after which a node that nothing was asked of is asked whether it has something to say.
  poll: 15
  # true: the site stays up beside its SuperNode; false: it is opened for each message.
  resident: true
  # Seconds after which a resident site that was asked nothing ends.
  idle: 900
"""
_MEANING_ELSE: Final = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
EXAMPLES: Final = {"folder": _FOLDER, "aws": _AWS, "flower": _FLOWER}


def example(kind: str, federation: str = "trial") -> str:
    """The text of a ``federation.yaml`` of ``kind``; raises Misuse if there is no such kind."""
    if kind not in EXAMPLES:
        raise Misuse(f"there is no example of a wire {kind[:60]!r}; choose one of {', '.join(sorted(EXAMPLES))}")
    slug = re.sub(r"[^a-z0-9]+", "-", federation.lower())[:50].strip("-")
    return (_HEAD + EXAMPLES[kind]).format(federation=_plain(federation), slug=slug)


def _plain(name: str) -> str:
    """The name as YAML reads it as text: what might mean a number, a date or a truth stands in quotes."""
    if re.fullmatch(r"[A-Za-z][\w-]*", name) and name.lower() not in _MEANING_ELSE:
        return name
    return f'"{name}"'
