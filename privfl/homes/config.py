"""What a folder says about itself in YAML: whose it is and where its wire and data are. No secret is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import yaml
from privfl_keys import check_name
from pydantic import Field, field_serializer, field_validator

from privfl.declared import Declared
from privfl.errors import Misuse
from privfl.homes.files import read_bytes, write_file
from privfl.wires.settings import Place, WireSettings, parsed

if TYPE_CHECKING:
    from privfl_keys.kms import KmsClient

    from privfl.tasks import DatabaseSource, FileSource
    from privfl.wires.mailbox import Mailbox

__all__ = [
    "AuthorityConfig",
    "Config",
    "CoordinatorConfig",
    "DataConfig",
    "Format",
    "KmsConfig",
    "OfficerConfig",
    "SiteConfig",
    "role_of",
]

Format = Literal["csv", "tsv", "parquet", "feather", "jsonl", "excel"]
Database = Literal["sqlite", "postgresql"]
_LOOPBACK = re.compile(r"http://(127(\.\d{1,3}){3}|localhost|\[::1\])(:\d+)?/?$")


class KmsConfig(Declared):
    """Which key of AWS KMS keeps the folder's keys, instead of a passphrase. Nothing in it is secret.

    Args:
        key: id, ARN or ``alias/…``. region, endpoint, profile: by default those of the AWS environment.
    """

    key: str = Field(pattern=r"^[A-Za-z0-9_:/-]+$", max_length=2048)
    region: str | None = Field(default=None, pattern=r"^[a-z]{2}(-[a-z]+)+-\d+$")
    endpoint: str | None = Field(default=None, pattern=r"^https?://[^\s/@]+/?$")
    profile: str | None = Field(default=None, min_length=1, max_length=128)

    @field_validator("endpoint")
    @classmethod
    def _private(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and endpoint.startswith("http:") and not _LOOPBACK.match(endpoint):
            raise ValueError(
                "a data key would travel over plain http; write https://…, or http://127.0.0.1:PORT of an emulator"
            )
        return endpoint

    def client(self) -> KmsClient:
        """The service; nothing is asked of it yet."""
        from privfl_keys.kms import AwsKms  # noqa: PLC0415 - loaded where a folder uses it

        return AwsKms(self.key, region=self.region, endpoint=self.endpoint, profile=self.profile)


class Config(Declared):
    """What every role's file holds.

    Args:
        federation: the one federation that this folder takes part in.
        name: of the member, as asked for in its request. fingerprint: of its key, to be read aloud.
        kms: what opens the folder's key store, if no passphrase does.
    """

    FILE: ClassVar[str]
    INIT: ClassVar[str]  # the command that makes such a folder

    role: str
    federation: str
    name: str
    fingerprint: str
    kms: Any = None  # KmsConfig

    @field_validator("kms", mode="before")
    @classmethod
    def _known_kms(cls, fields: Any) -> KmsConfig | None:
        if fields is None or isinstance(fields, KmsConfig):
            return fields
        if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
            raise ValueError("expected fields with values, such as 'key: alias/north'")
        try:
            return KmsConfig(**fields)
        except Misuse as error:
            raise ValueError(str(error)) from None

    @field_validator("federation", "name")
    @classmethod
    def _usable(cls, name: str) -> str:
        try:
            return check_name(name)
        except Misuse as error:
            raise ValueError(str(error)) from None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file of ``folder``; raises Misuse naming file, line or field, and what to do."""
        path = folder / cls.FILE
        if not path.exists():
            raise Misuse(_nothing_there(folder, cls))
        try:
            fields = yaml.safe_load(read_bytes(path, "the folder's configuration").decode("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}" if mark else ""
            raise Misuse(f"{path}{where}: this is not YAML; correct it, or restore the file") from None
        if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
            raise Misuse(f"{path}: expected fields with values, such as 'name: north'; restore the file")
        try:
            return cls(**fields)
        except Misuse as error:
            raise Misuse(f"{path}: {error}") from None

    def write(self, folder: Path) -> None:
        """Write the file durably; raises StorageError if the disk does not take it."""
        fields = self.model_dump(mode="json", exclude_none=True)
        text = f"# A privfl {self.role} folder. No secret is in this file.\n" + yaml.safe_dump(fields, sort_keys=False)
        write_file(folder / self.FILE, text.encode())

    def updated(self, **fields: Any) -> Self:
        """A copy with some fields replaced and checked."""
        return type(self)(**{**self.model_dump(), **fields})


class DataConfig(Declared):
    """Where a site's rows are; they are never copied into the folder.

    Args:
        path: absolute, or the address of a database. format: how it is read. table: its name in a database.
        schema_sha256: of the folder's own copy of the schema, in hex.
        columns: those that the schema declares, with the type that was found. allow_empty: no rows are no error.
        analytics_only: the rows stay where they are and are never read into memory; no training.
    """

    path: str
    format: Format | Database
    table: str | None = None
    schema_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    columns: dict[str, str]
    allow_empty: bool = False
    analytics_only: bool = False

    @property
    def source(self) -> FileSource | DatabaseSource:
        """Where the rows are; raises Misuse where the file was changed to something that is no such place."""
        from privfl.tasks.data import DatabaseSource, FileSource  # noqa: PLC0415 - loaded when data is read

        if self.format == "sqlite":
            return DatabaseSource("sqlite", self.path, self.table or "")
        if self.table is not None:
            return DatabaseSource.of(self.path, self.table)
        return FileSource(Path(self.path), self.format)


class _Wired(Config):
    wire: Any = None  # WireSettings

    @field_validator("wire", mode="before")
    @classmethod
    def _known_wire(cls, wire: Any) -> WireSettings | None:
        return None if wire is None else parsed(wire)

    @field_serializer("wire")
    def _stored_wire(self, wire: WireSettings | None) -> Any:
        return None if wire is None else wire.stored()

    def mailbox(self, folder: Path, own: bytes) -> Mailbox:
        """The own end of the wire; raises Misuse if none was named, WireError if it cannot be used."""
        if self.wire is None:
            raise Misuse("no wire was named; run join again with --wire, giving folder:PATH or a federation.yaml")
        found: Mailbox = self.wire.open(Place(own, self.name, self.role, self.federation, folder))
        return found


class SiteConfig(_Wired):
    """``site.yaml``."""

    FILE: ClassVar[str] = "site.yaml"
    INIT: ClassVar[str] = "privfl site init"

    role: Literal["site"] = "site"
    data: DataConfig | None = None

    @field_validator("data", mode="before")
    @classmethod
    def _placed(cls, fields: Any) -> Any:
        if fields is None or isinstance(fields, DataConfig):
            return fields
        if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
            raise ValueError("expected fields with values; bind the data again with privfl site data")
        try:
            return DataConfig(**fields)
        except Misuse as error:  # or the complaint would not say that it is about data
            raise ValueError(f"{error}; bind the data again with privfl site data") from None


class CoordinatorConfig(_Wired):
    """``coordinator.yaml``."""

    FILE: ClassVar[str] = "coordinator.yaml"
    INIT: ClassVar[str] = "privfl coordinator init"

    role: Literal["coordinator"] = "coordinator"


class OfficerConfig(Config):
    """``officer.yaml``: of whoever only signs or reads."""

    FILE: ClassVar[str] = "officer.yaml"
    INIT: ClassVar[str] = "privfl policy init"

    role: Literal["compliance", "analyst", "auditor"] = "compliance"


class AuthorityConfig(Config):
    """``authority.yaml``."""

    FILE: ClassVar[str] = "authority.yaml"
    INIT: ClassVar[str] = "privfl authority init"

    role: Literal["authority"] = "authority"
    name: str = "authority"


KINDS: tuple[type[Config], ...] = (SiteConfig, CoordinatorConfig, OfficerConfig, AuthorityConfig)


def role_of(folder: Path) -> type[Config] | None:
    """Which role's configuration lies in ``folder``; None if none does."""
    return next((kind for kind in KINDS if (folder / kind.FILE).exists()), None)


def _nothing_there(folder: Path, wanted: type[Config]) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}; check the path, or make it with: {wanted.INIT} {folder}"
    other = role_of(folder)
    if other is not None:
        return f"{folder} has {other.FILE} and not {wanted.FILE}: it is another role's folder; check the path"
    return f"{folder} has no {wanted.FILE}: it is no such folder, or not finished; run: {wanted.INIT} {folder}"
