"""The site in a ClientApp: what a message brings goes into the site's spool, and what the site answers goes back.

The handler opens no key and reads no row where the site is resident: it is a carrier, started anew by Flower for each
message, and so it loads little. Nothing that it fails over reaches the other side in words of its own making.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from privfl.errors import Malformed, Misuse, PrivflError, WireError
from privfl.flower.records import BODIES, array_of, packed, unpacked
from privfl.wires.flower import Spool, spool_of
from privfl.wires.flower_carry import MAX_PROBLEM, Carrier, Load
from privfl.wires.flower_peers import Peers

__all__ = ["HOLD_S", "Work", "Worked", "carrier_of", "exchange", "handler", "site_app"]

log = logging.getLogger("privfl.flower")

HOLD_S = 30.0  # a reply waits so long for the site; then the courier asks again
MOST_BODIES = 4 * 2**30  # bytes in a site's spool; the largest model is an eighth of this
SITE, SITE_VARIABLE = "privfl-site", "PRIVFL_SITE"
ACTION = "privfl"
AT_FAULT = "this node's site cannot be reached; its operator was told why"


@dataclass(frozen=True)
class Worked:
    """How the site got on: whether it still works, or why it does not, in words that may leave the site."""

    working: bool = False
    problem: str = ""


#: Lets the site work until its box is empty, or for so many seconds. The third argument: a courier says hello.
Work = Callable[[Carrier, float, bool], Worked]


class SiteCarrier(Carrier):
    """The carrier of a site: it takes the letters of its federation's coordinators, and nothing of anybody else."""

    def __init__(self, spool: Spool, own: bytes, peers: Peers) -> None:
        super().__init__(spool, own, peers.check, most=MOST_BODIES)
        self.peers = peers


def carrier_of(home: Path) -> SiteCarrier:
    """The carrier of the site in ``home``; raises Misuse if the folder is not complete, WireError for its spool."""
    from privfl.flower.resident import own_id  # noqa: PLC0415 - after the cheap checks

    return SiteCarrier(spool_of(home), own_id(home), Peers.read(home))


def exchange(message: Message, carrier: SiteCarrier, work: Work, *, hold: float = HOLD_S) -> Message:
    """Answer one message of the courier: take its mail in, let the site work, reply with what it has to say.

    Args:
        carrier: of the site's spool. work: see :data:`Work`.
        hold: seconds the site may take; what comes later goes with the next message.

    Raises:
        Malformed: the message is none of a courier. WireError: the spool cannot be used.
    """
    load, bodies = unpacked(message.content)
    if len(load.own) != 32 or load.own == carrier.own:
        raise Malformed("a load that no courier has sent")
    if load.to not in (b"", carrier.own):
        return _reply(message, Load(carrier.own))  # a message for a site that was at this node before
    if not carrier.peers.knows(load.own):
        return _reply(message, Load(carrier.own))  # another federation's courier learns whose node this is not
    carrier.confirmed(load.own, load.taken)
    taken = carrier.take(load.own, load, bodies)
    bodies.clear()
    del message.content[BODIES]  # on disk by now
    if taken.refused:
        log.warning("%d letters were no good", taken.refused)
    worked = work(carrier, hold, not load.to)
    carrier.spool.sweep()
    return _answered(message, carrier, load.own, tuple(taken.names), worked)


def _answered(message: Message, carrier: Carrier, to: bytes, taken: tuple[str, ...], worked: Worked) -> Message:
    letters, more = carrier.letters(to, carrier.waiting(to))
    found = {}
    for ref in (ref for letter in letters for ref in letter.refs):
        if ref.sha256 not in found:
            found[ref.sha256] = array_of(carrier.spool.bodies.get(ref.sha256, ref.size))
    load = Load(
        carrier.own,
        to,
        tuple((letter.name, letter.data) for letter in letters),
        taken,
        worked.working,
        more,
        worked.problem[:MAX_PROBLEM],
    )
    return Message(packed(load, found.items()), reply_to=message)


def _reply(message: Message, load: Load) -> Message:
    return Message(packed(load, ()), reply_to=message)


def handler(message: Message, context: Context) -> Message:
    """What ``query("privfl")`` of a ClientApp calls: the exchange with the site that this node is configured for.

    The site's folder is named by the node's configuration ``privfl-site``, or by the environment's PRIVFL_SITE. Never
    raises: what is wrong at this node its operator reads in the log, and the coordinator learns that something is.
    """
    try:
        home = site_home(context.node_config)
        from privfl.flower.resident import Resident, site_wire  # noqa: PLC0415 - after the cheap checks

        wire = site_wire(home)
        work: Work
        if wire.resident:
            work = Resident(home, wire.idle)
        else:
            from privfl.flower.visitor import Visitor  # noqa: PLC0415 - all that a site needs

            work = Visitor(home)
        return exchange(message, carrier_of(home), work)
    except WireError as error:
        log.error("%s", error)
        return _reply(message, Load(problem="the spool of this node's site cannot be used; its operator was told why"))
    except PrivflError as error:
        log.error("%s", error)
        return _reply(message, Load(problem=getattr(error, "public", AT_FAULT)))
    except Exception as error:  # Flower would send its text on
        log.error("carrying mail failed: %s", type(error).__name__)
        return _reply(message, Load(problem=AT_FAULT))


class NoSite(Misuse):
    """This node is not set up; ``public`` may be told to the coordinator."""

    public = f"this node names no site; give its SuperNode --node-config '{SITE}=\"/path/of/the/site\"'"


def site_home(node_config: Mapping[str, Any]) -> Path:
    """The folder of the node's site; raises Misuse if none is named, or there is none.

    Flower's simulation engine gives its nodes a number and nothing else, so ``{partition-id}`` stands for that.
    """
    named = node_config.get(SITE) or os.environ.get(SITE_VARIABLE)
    if not named or not isinstance(named, str):
        raise NoSite(f"{NoSite.public}, or set {SITE_VARIABLE}")
    named = named.replace("{partition-id}", str(node_config.get("partition-id", "")))
    home = Path(named).expanduser()
    if not (home / "site.yaml").exists():
        raise Misuse(f"{home} has no site.yaml; {SITE} of this node names a folder made by: privfl site init")
    return home


def add_to(app: ClientApp) -> ClientApp:
    """Register the handler in an app that has other functions of its own; returns the app."""
    app.query(ACTION)(handler)
    return app


site_app = add_to(ClientApp())
