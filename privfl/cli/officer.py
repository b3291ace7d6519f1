"""``privfl policy init`` and ``privfl policy request``: the folder of whoever signs policies, or only reads."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from privfl.cli.roles import (
    AsJson,
    Federation,
    Folder,
    Kms,
    KmsEndpoint,
    KmsProfile,
    KmsRegion,
    Name,
    PassphraseFile,
    federation_named,
    kept_by,
    named,
    now,
    passphrase,
    tell,
)

if TYPE_CHECKING:
    from privfl.homes.officer import OfficerHome

__all__ = ["Role", "add_to", "init", "request"]


class Role(StrEnum):
    """What the member will be listed as."""

    COMPLIANCE = "compliance"
    ANALYST = "analyst"
    AUDITOR = "auditor"


def add_to(app: typer.Typer) -> None:
    """Put the commands into the app of ``privfl policy``."""
    app.command("init", epilog="Example: privfl policy init officer --federation trial --name dr-law")(init)
    app.command("request", epilog="Example: privfl policy request officer")(request)


def init(
    folder: Folder,
    federation: Federation,
    name: Name = None,
    role: Annotated[Role, typer.Option(help="What to be listed as.")] = Role.COMPLIANCE,
    kms: Kms = None,
    kms_region: KmsRegion = None,
    kms_endpoint: KmsEndpoint = None,
    kms_profile: KmsProfile = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make the compliance officer's (or an analyst's, or an auditor's) FOLDER with its key and its request.

    Running it again finishes what was interrupted. With --kms a key of AWS KMS keeps the keys, and no passphrase is
    asked for, now or later.
    """
    from privfl.homes.officer import OfficerHome  # noqa: PLC0415

    federation, _ = federation_named(federation)
    keeper = kept_by(kms, kms_region, kms_endpoint, kms_profile)
    word = "" if keeper else passphrase(folder, passphrase_file, found=True)
    home = OfficerHome.init(folder, named(name, folder), federation, word, now(), role=role.value, kms=keeper)
    _told(home, as_json)


def request(folder: Folder, passphrase_file: PassphraseFile = None, as_json: AsJson = False) -> None:
    """Write the enrolment request of FOLDER again and show the fingerprint to read aloud."""
    from privfl.homes.officer import OfficerHome  # noqa: PLC0415

    home = OfficerHome.open(folder, passphrase(folder, passphrase_file))
    home.request(now())
    _told(home, as_json)


def _told(home: OfficerHome, as_json: bool) -> None:
    path, config = home.folder / "request", home.config
    then = {
        "compliance": "write and sign a policy (privfl policy new, privfl policy sign)",
        "analyst": "sign what you ask for (privfl mandate)",
    }.get(config.role, "your key is in force")
    tell(
        as_json,
        {**config.model_dump(), "request": str(path)},
        f"{config.name} ({config.role}) in {config.federation}: key and request are in {home.folder}",
        f"Fingerprint: {config.fingerprint}",
        f"Next: send {path} to the authority and read this fingerprint aloud, from this screen, when it calls; "
        f"when a roster lists you, {then}.",
    )
