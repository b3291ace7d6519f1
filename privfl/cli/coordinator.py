"""``privfl coordinator``: the folder of whoever runs the rounds and is trusted with nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from privfl.cli.roles import (
    AsJson,
    Authority,
    Federation,
    Folder,
    Kms,
    KmsEndpoint,
    KmsProfile,
    KmsRegion,
    Name,
    PassphraseFile,
    Policy,
    Rosters,
    federation_named,
    kept_by,
    named,
    now,
    passphrase,
    quoted,
    tell,
)
from privfl.cli.serve import FLOWER_RUN, next_run
from privfl.errors import Misuse

__all__ = ["app"]

app = typer.Typer(help="Set up and run a federation's coordinator.", no_args_is_help=True)


@app.command(
    epilog="Example: privfl coordinator init hub --federation trial --wire /mnt/shared/trial; or: privfl coordinator "
    "init hub --federation federation.yaml"
)
def init(
    folder: Folder,
    federation: Federation,
    wire: Annotated[
        str | None,
        typer.Option(help="folder:PATH of the folder that all share, made if it is not there; or a federation.yaml."),
    ] = None,
    name: Name = None,
    kms: Kms = None,
    kms_region: KmsRegion = None,
    kms_endpoint: KmsEndpoint = None,
    kms_profile: KmsProfile = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make the coordinator's FOLDER with its key, its request and the wire.

    Running it again finishes what was interrupted. With --kms a key of AWS KMS keeps the keys, and no passphrase is
    asked for, now or later.
    """
    from privfl.homes.coordinator import CoordinatorHome  # noqa: PLC0415 - loaded when a command runs

    federation, file = federation_named(federation)
    wire = wire or file
    if wire is None:
        raise Misuse("no wire is named; give --wire folder:PATH, or a federation.yaml as --federation")
    keeper = kept_by(kms, kms_region, kms_endpoint, kms_profile)
    word = "" if keeper else passphrase(folder, passphrase_file, found=True)
    config = CoordinatorHome.init(folder, named(name, folder), federation, wire, word, now(), kms=keeper)
    tell(
        as_json,
        {**config.model_dump(), "request": str(folder / "request")},
        f"{config.name} (coordinator) in {federation}: key and request are in {folder}; the wire is {config.wire}",
        f"Fingerprint: {config.fingerprint}",
        f"Next: send {folder / 'request'} to the authority and read this fingerprint aloud, from this screen, when it "
        f"calls; with roster and policy in hand: privfl coordinator join {quoted(folder)} --roster ROSTERS "
        "--authority FINGERPRINT --policy POLICY",
    )


@app.command(
    epilog="Example: privfl coordinator join hub --roster rosters --policy policy.signed --authority authority.pub"
)
def join(
    folder: Folder,
    rosters: Rosters = None,
    authority: Authority = None,
    policy: Policy = None,
    wire: Annotated[str | None, typer.Option(help="folder:PATH or a federation.yaml, if the wire has changed.")] = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Take over the roster and the policy, or newer ones; on any refusal nothing has changed."""
    from privfl_keys import fingerprint  # noqa: PLC0415

    from privfl.homes.coordinator import CoordinatorHome  # noqa: PLC0415

    word = passphrase(folder, passphrase_file)
    joined = CoordinatorHome.join(folder, word, now(), rosters=rosters, authority=authority, policy=policy, wire=wire)
    roster, held = joined.roster, fingerprint(joined.authority)
    tell(
        as_json,
        {
            "federation": roster.federation,
            "roster": roster.version,
            "policy": joined.policy.version,
            "policy_hash": joined.policy.hash.hex(),
            "authority": held,
        },
        f"joined {roster.federation}: roster version {roster.version}, policy version {joined.policy.version}",
        f"Authority pinned here: {held}",
        _next_step(folder),
    )


def _next_step(folder: Path) -> str:
    command = next_run(folder)
    if command == FLOWER_RUN:
        return f"Next: privfl train TASK or privfl query STUDY, with --coordinator {folder} --detach; then: {command}"
    return (
        f"Next, when the sites run: privfl train TASK or privfl query STUDY, with --coordinator {folder}; or, to serve "
        f"task after task: {command}"
    )
