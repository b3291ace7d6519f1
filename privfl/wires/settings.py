"""Which wire a federation speaks over, as people declare it: one ``federation.yaml`` for all its members.

::

    federation: trial
    wire:
      kind: aws            # or folder, flower
      region: eu-central-1
      bucket: trial-bodies

Nothing in it is secret, and nothing in it is a privacy parameter: whoever writes it can only carry mail elsewhere.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from privfl_keys import check_name
from pydantic import Field, ValidationInfo, field_validator

from privfl.declared import Declared
from privfl.declared_words import nearest
from privfl.errors import Misuse, WireError

if TYPE_CHECKING:
    from privfl.wires.mailbox import Mailbox

__all__ = [
    "AwsSettings",
    "FederationFile",
    "FlowerSettings",
    "FolderSettings",
    "Place",
    "WireSettings",
    "check_extra",
    "read_federation",
    "read_wire",
]

_FOLDER = "folder:"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
#: Texts of AWS's with a form: the form, and what to write.
_FORMS = {
    "region": (r"[a-z]{2}(-[a-z]+)+-\d+", "a region, such as eu-central-1"),
    "prefix": (r"[A-Za-z0-9_-]{1,24}", "1 to 24 letters, digits, hyphens and underscores"),
    "role": (
        r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@{}/-]+",
        "the role's ARN, such as arn:aws:iam::123456789012:role/privfl-{name}",
    ),
    "account": (r"\d{12}", "the account's 12 digits, in quotes"),
    "kms_key": (
        r"alias/[\w/-]+|arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:(key|alias)/[\w/-]+|(mrk-)?[0-9a-f-]{32,36}",
        "the key's alias/NAME, id or ARN",
    ),
}
Seconds = Annotated[int, Field(ge=1, le=43_200)]


@dataclass(frozen=True)
class Place:
    """Whose end of a wire is opened.

    Attributes:
        own: 32 bytes, the participant's id. name: as in the roster. role: ``site`` or ``coordinator``.
        federation: its name. home: the participant's folder, for what a wire keeps there.
    """

    own: bytes
    name: str
    role: str
    federation: str
    home: Path


class WireSettings(Declared):
    """One kind of wire; the base of all."""

    KINDS: ClassVar[dict[str, type[WireSettings]]] = {}
    #: What has to be there before this wire carries anything, in words.
    NEEDS: ClassVar[str] = ""
    kind: str

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.KINDS[cls.model_fields["kind"].default] = cls

    @abstractmethod
    def open(self, place: Place) -> Mailbox:
        """The own end of the wire; raises Misuse if it is no such wire, WireError if it cannot be used now."""

    def check(self) -> None:
        """Look at the wire, as far as that is possible without a key; raises Misuse if it is none."""

    def make(self) -> None:
        """Make what the coordinator's own computer can make of it, unless it is there; raises Misuse if it cannot."""

    @abstractmethod
    def probe(self, home: Path) -> str:
        """Try the wire from the member's folder ``home``; what was found, in words. Raises Misuse or WireError."""

    def stored(self) -> Any:
        """As a configuration keeps it."""
        return {"kind": self.kind, **self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)}

    def __str__(self) -> str:
        return self.kind


class FolderSettings(WireSettings):
    """A shared directory; ``path`` is absolute."""

    NEEDS = "a directory that every member's user can read and write: privfl wire folder create PATH --group"
    text_means = "the path of the shared folder"

    kind: Literal["folder"] = "folder"
    path: str

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if not path or "\0" in path:
            raise ValueError("this wire names no folder; write the path of a shared folder")
        return str(Path(path).expanduser().absolute())

    def open(self, place: Place) -> Mailbox:
        """The end of the folder wire."""
        from privfl.wires.folder import FolderWire  # noqa: PLC0415 - loaded when a wire is used

        return FolderWire(self.path).mailbox(place.own)

    def check(self) -> None:
        """There is such a folder."""
        from privfl.wires.folder import FolderWire  # noqa: PLC0415

        FolderWire(self.path)

    def make(self) -> None:
        """Make the folder."""
        from privfl.wires.folder import FolderWire  # noqa: PLC0415

        try:
            FolderWire(self.path)
        except Misuse:
            FolderWire.create(self.path)

    def probe(self, home: Path) -> str:
        """Whether the folder takes a file."""
        from privfl.wires.folder import FolderWire  # noqa: PLC0415

        try:
            with FolderWire(self.path).tree.spooled([b"probe"]):
                pass
        except OSError as error:
            raise WireError(f"{self.path} takes no file ({error.strerror}); check its mode and mount") from None
        return f"{self.path} can be read and written"

    def stored(self) -> str:
        """In one word."""
        return str(self)

    def __str__(self) -> str:
        return _FOLDER + self.path


class AwsSettings(WireSettings):
    """SQS queues and an S3 bucket.

    Args:
        region, bucket: where. prefix: of the names of queues, so that several federations share an account.
        endpoint: of an emulator or a private link, ``http(s)://host:port``; by default AWS's own.
        kms_key: id, ARN or ``alias/…`` of the key that encrypts bodies and messages; None: S3's and SQS's own keys.
        role: ARN to assume before anything else; ``{name}`` stands for the member's name. external_id, session_tags:
            given with it. profile: of the local AWS configuration, if another than the default.
        account: whose the queues and the bucket are, 12 digits; nobody else's are used then. By default the caller's.
        visibility: seconds until a message whose reader died is delivered again; extended while it lives.
        poll: seconds for which SQS holds a question back while there is no message.
        part_mib: a body longer than this is written in parts, several at once.
        retain_days: how long bodies are kept at most, by the bucket's own rule.
    """

    NEEDS = (
        'pip install "privfl[aws]"; AWS credentials at every member (environment, profile, single sign-on or the '
        "machine's role); queues and bucket, made once by: privfl wire aws init"
    )
    text_means = "text (digits alone in quotes)"

    kind: Literal["aws"] = "aws"
    region: str
    bucket: str
    prefix: str = "privfl"
    endpoint: str | None = None
    kms_key: str | None = None
    role: str | None = None
    external_id: str | None = None
    session_tags: dict[str, str] = Field(default_factory=dict)
    profile: str | None = None
    account: str | None = None
    visibility: Seconds = 30
    poll: Annotated[int, Field(ge=1, le=20)] = 20
    part_mib: Annotated[int, Field(ge=5, le=512)] = 64
    retain_days: Annotated[int, Field(ge=1, le=365)] = 14

    @field_validator(*_FORMS)
    @classmethod
    def _formed(cls, text: str | None, info: ValidationInfo) -> str | None:
        form, words = _FORMS[info.field_name or ""]
        if text is not None and not re.fullmatch(form, text, re.ASCII):
            raise ValueError(f"{text[:60]!r} will not do; write {words}")
        return text

    @field_validator("session_tags", mode="before")
    @classmethod
    def _texts(cls, tags: Any) -> Any:
        if not isinstance(tags, Mapping) or not all(isinstance(one, str) for pair in tags.items() for one in pair):
            raise ValueError("write tags with text values (digits alone in quotes), such as {team: cardiology}")
        return tags

    @field_validator("bucket")
    @classmethod
    def _a_bucket(cls, bucket: str) -> str:
        if not _BUCKET.fullmatch(bucket) or re.search(r"[.]{2}|[.]-|-[.]", bucket):
            raise ValueError(f"{bucket!r} is no name of a bucket: 3 to 63 lower-case letters, digits and hyphens")
        return bucket

    @field_validator("endpoint")
    @classmethod
    def _an_address(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not re.fullmatch(r"https?://[^\s/@]+/?", endpoint):
            shown = re.sub(r"(//).*@", r"\1…@", endpoint[:200])
            raise ValueError(f"{shown!r} is no endpoint; write https://host:port, without user or password")
        return endpoint

    def open(self, place: Place) -> Mailbox:
        """The end of the SQS and S3 wire."""
        check_extra("boto3", "aws")
        from privfl.wires.aws import open_mailbox  # noqa: PLC0415 - an extra

        return open_mailbox(self, place)

    def probe(self, home: Path) -> str:
        """Whether endpoint and credentials work, and bucket and queue are there."""
        check_extra("boto3", "aws")
        from privfl.wires.aws import probe  # noqa: PLC0415

        return probe(self, home)

    def __str__(self) -> str:
        return f"aws:{self.bucket} ({self.region})"


def check_extra(module: str, extra: str) -> None:
    """Raise Misuse unless ``module`` is installed."""
    if find_spec(module) is None:
        raise Misuse(f'the wire of kind {extra} needs more than is installed here: pip install "privfl[{extra}]"')


class FlowerSettings(WireSettings):
    """Flower's SuperLink and SuperNodes carry the mail; each member keeps a wire folder ``flower`` in its home.

    Args:
        poll: seconds after which a node that nothing was asked of is asked whether it has something to say.
        resident: the site stays up between messages, as a process of its own beside the SuperNode; otherwise it is
            opened for each message.
        idle: seconds after which a resident site that was asked nothing ends.
    """

    NEEDS = (
        'pip install "privfl[flower]"; a SuperLink that all reach, a SuperNode at every site, and the privfl app: '
        "see docs/flower.md"
    )

    kind: Literal["flower"] = "flower"
    poll: Seconds = 15
    resident: bool = True
    idle: Seconds = 900

    def open(self, place: Place) -> Mailbox:
        """The end of the own wire folder, which the Flower app empties and fills."""
        from privfl.wires.flower import spool_of  # noqa: PLC0415

        return spool_of(place.home).mailbox(place.own)

    def probe(self, home: Path) -> str:
        """Whether the own wire folder takes a file; what lies beyond it only Flower knows."""
        from privfl.wires.flower import spool_of  # noqa: PLC0415

        return FolderSettings(path=str(spool_of(home).path)).probe(home)


class FederationFile(Declared):
    """``federation.yaml``: which federation, over which wire."""

    federation: str
    wire: Any

    @field_validator("federation")
    @classmethod
    def _usable(cls, name: str) -> str:
        try:
            return check_name(name)
        except Misuse as error:
            raise ValueError(str(error)) from None

    @field_validator("wire", mode="before")
    @classmethod
    def _known(cls, fields: Any) -> WireSettings:
        return parsed(fields)

    def to_yaml(self) -> str:
        """As :func:`read_federation` reads it; all text but fields' names is in quotes, or it might mean a number."""
        import yaml  # noqa: PLC0415 - only who writes YAML pays for it

        class Quoting(yaml.SafeDumper):
            pass

        Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, '"'))
        fields = {"federation": self.federation, "wire": self.wire.stored()}
        text = yaml.dump(fields, Dumper=Quoting, sort_keys=False, allow_unicode=True, width=10**6)
        return re.sub(r'^((?:  )?)"([a-z_]+)":', r"\1\2:", text, flags=re.MULTILINE)


def parsed(fields: Any) -> WireSettings:
    """Settings from what a file holds: text for a folder, or fields with ``kind``; raises ValueError in words."""
    if isinstance(fields, WireSettings):
        return fields
    if isinstance(fields, str):
        kind, colon, rest = fields.partition(":")
        if not colon or kind != "folder" or not Path(rest).is_absolute():
            raise ValueError(f"{fields!r} is no wire; write folder:/absolute/path, or fields with kind: aws or flower")
        fields = {"kind": "folder", "path": rest}
    if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
        raise ValueError("a wire has fields with values, such as 'kind: folder' and 'path: /srv/wire'")
    kinds = ", ".join(sorted(WireSettings.KINDS))
    if fields.get("kind") == "memory":
        raise ValueError("the memory wire lives in one process, for notebooks (privfl.Federation.local); choose "
                         f"kind: {kinds}")  # fmt: skip
    if "kind" not in fields:
        raise ValueError(f"kind: is missing; choose one of {kinds}")
    found = WireSettings.KINDS.get(str(fields["kind"]))
    if found is None:
        near = nearest(fields["kind"], WireSettings.KINDS)
        meant = f"did you mean {near}?" if near else f"choose one of {kinds}"
        raise ValueError(f"kind: {str(fields['kind'])[:60]!r} is no kind of wire; {meant}")
    try:
        return found(**fields)
    except Misuse as error:
        raise ValueError(str(error)) from None


def read_federation(path: Path) -> FederationFile:
    """Read ``federation.yaml``; a folder's path in it is taken from where the file lies.

    Raises:
        Misuse: it cannot be read, or is none, with the field and what to do.
    """
    from privfl.budget.policy_file import FileKind, InvalidPolicy, read_document  # noqa: PLC0415 - when one is read

    try:
        document = read_document(path, FileKind("federation", "federation: my-federation", 4))
        if document.faults:
            raise InvalidPolicy(document.faults, str(path))
    except InvalidPolicy as error:
        raise Misuse(str(error)) from None
    fields = dict(document.fields)
    if "wire" not in fields:
        kinds = ", ".join(sorted(WireSettings.KINDS))
        raise Misuse(f"{path}: wire: is missing; write 'wire:' with 'kind:' below it, one of {kinds}; an example "
                     "prints: privfl wire example KIND")  # fmt: skip
    wire = fields["wire"]
    if isinstance(wire, dict) and wire.get("kind") == "folder" and isinstance(wire.get("path"), str) and wire["path"]:
        fields["wire"] = {**wire, "path": str(path.parent.absolute() / Path(wire["path"]).expanduser())}
    try:
        return FederationFile(**fields)
    except Misuse as error:
        raise Misuse(f"{path}: {error}") from None


def read_wire(text: str, federation: str) -> WireSettings:
    """Read what a person gave as a wire: ``folder:PATH``, a bare path of a folder, or a ``federation.yaml``.

    Raises:
        Misuse: another kind of wire, no path, or the file of another federation.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in ("aws", "flower"):
        raise Misuse(f"a wire of kind {kind} is described in a file; write one with 'wire:' and 'kind: {kind}', "
                     "and give its path")  # fmt: skip
    if colon and kind != "folder" and "/" not in kind:
        raise Misuse(f"{kind!r} is no kind of wire here; write folder:PATH, or the path of a federation.yaml")
    path = rest if colon and kind == "folder" else text
    if not path or "\0" in path:
        raise Misuse("this wire names no folder; write folder:PATH")
    if text == path and (path.endswith((".yaml", ".yml")) or Path(path).expanduser().is_file()):
        found = read_federation(Path(path).expanduser())
        if found.federation != federation:
            raise Misuse(f"{path} is of the federation {found.federation!r} and this folder belongs to {federation!r}; "
                         "check the path")  # fmt: skip
        settings: WireSettings = found.wire
        return settings
    return FolderSettings(path=path)
