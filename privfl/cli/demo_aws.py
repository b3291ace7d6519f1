"""The demo over SQS and S3: queues and a bucket in a made-up cloud on this computer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from privfl.cli.demo_wires import FolderDemo

if TYPE_CHECKING:
    from privfl.homes.trial import Trial
    from privfl.wires.aws.emulator import Emulator
    from privfl.wires.settings import AwsSettings

__all__ = ["AwsDemo"]


class AwsDemo(FolderDemo):
    """Every party a process of its own; each speaks with an emulator of AWS only, with made-up credentials."""

    kind = "aws"
    most_rounds = 12
    modules = ("boto3", "moto", "flask")
    install = 'pip install "privfl[aws]" "moto[server]"'
    _cloud: Emulator

    def told(self) -> str:
        """See :class:`DemoWire`."""
        return "The cloud is made up: an emulator of SQS and S3 on this computer, without an account or real keys."

    @contextmanager
    def running(self, place: Path) -> Iterator[None]:
        """See :class:`DemoWire`."""
        from privfl.wires.aws.emulator import emulator  # noqa: PLC0415 - an extra

        with emulator() as self._cloud, self._cloud.at_hand():
            yield

    def settings(self, trial: Trial) -> AwsSettings:
        """See :class:`DemoWire`."""
        from privfl.wires.settings import AwsSettings  # noqa: PLC0415

        return AwsSettings(
            region="eu-central-1", bucket="privfl-demo-bodies", endpoint=self._cloud.endpoint, visibility=10, poll=5
        )

    def join(self, trial: Trial, passphrase: str, now: int) -> None:
        """Make queues, bucket and policies as ``privfl wire aws init`` does for the roster; then as ever."""
        from privfl.homes.rosters import read_rosters  # noqa: PLC0415
        from privfl.wires.aws.admin import Work, caller, make_plan  # noqa: PLC0415 - an extra
        from privfl.wires.aws.admin_init import initialise  # noqa: PLC0415
        from privfl.wires.aws.policies_plan import Participant  # noqa: PLC0415
        from privfl.wires.aws.session import clients  # noqa: PLC0415

        settings, roster = self.settings(trial), read_rosters(trial.rosters)[-1].roster
        members = tuple(
            Participant(one.name, one.site_id, "coordinator" in one.roles)
            for one in roster.members
            if {"site", "coordinator"} & set(one.roles)
        )
        made = clients(settings, "administrator")
        try:
            work = Work(made, make_plan(settings, roster.federation, members, caller(made)))
            initialise(work, trial.folder / "cloud")
        finally:
            made.close()
        super().join(trial, passphrase, now)

    @property
    def environment(self) -> Mapping[str, str]:
        """See :class:`DemoWire`."""
        return self._cloud.environment

    @property
    def removed(self) -> tuple[str, ...]:
        """See :class:`DemoWire`."""
        return self._cloud.removed
