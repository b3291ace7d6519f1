"""Names of queues and objects fit, and no two federations or members share them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfl.errors import Misuse
from privfl.wires.aws.names import body_key, body_prefixes, dlq_name, lease_key, queue_name, slug, tags
from privfl.wires.settings import AwsSettings

SETTINGS = AwsSettings(region="eu-central-1", bucket="bodies", prefix="p" * 24)
ids = st.binary(min_size=32, max_size=32)


@given(st.text(min_size=1, max_size=60), ids)
def test_every_name_fits(federation: str, member: bytes) -> None:
    """SQS takes 80 of its characters, and a slug none that means anything in a key or a policy."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", dlq_name(SETTINGS, federation, member))
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,17}", slug(federation))
    assert body_key(federation, member, member, member).startswith(body_prefixes(federation, member).inbox)
    assert lease_key(federation).startswith(body_prefixes(federation, member).everything)


@given(st.lists(st.text(alphabet="aB1- é", min_size=1, max_size=24), min_size=2, max_size=6, unique=True))
def test_federations_do_not_share_a_slug(names: list[str]) -> None:
    """Also where letters were left out, cut or lowered."""
    assert len({slug(name) for name in names}) == len(names)


def test_a_name_that_looks_altered_is_altered() -> None:
    """Nobody can choose the name that another one was turned into."""
    altered = slug("Trial")
    assert altered != "trial" == slug("trial")
    assert slug(altered) != altered


@given(ids, ids, ids)
def test_members_have_their_own(one: bytes, other: bytes, name: bytes) -> None:
    """Queues and keys differ whenever the members do."""
    same = one == other
    assert (body_key("f", one, other, name) == body_key("f", other, one, name)) == same
    assert (tags("f", one) == tags("f", other)) == same
    assert (queue_name(SETTINGS, "f", one) == queue_name(SETTINGS, "f", other)) == (one[:16] == other[:16])


@pytest.mark.parametrize("wrong", [b"", b"x" * 31, b"x" * 33])
def test_ids_have_32_bytes(wrong: bytes) -> None:
    """Anything else is a mistake of the caller."""
    with pytest.raises(Misuse, match="32 bytes"):
        queue_name(SETTINGS, "f", wrong)
    with pytest.raises(Misuse, match="32 bytes"):
        body_key("f", bytes(32), bytes(32), wrong)
