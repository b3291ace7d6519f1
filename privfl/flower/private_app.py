"""The client's line: ``app = private(app)`` puts a ClientApp's own functions behind its site's policy and ledger.

What comes in is the courier's mail alone. The app's functions live here and the site in a process of its own, which
calls them after its charge; what they return goes into the masked, noised vector and nowhere else.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from privfl.errors import Misuse, PrivflError, WireError
from privfl.flower.client import ACTION, AT_FAULT, HOLD_S, carrier_of, exchange, site_home
from privfl.flower.records import packed
from privfl.wires.flower_carry import Load

if TYPE_CHECKING:
    from privfl.learn.update_answers import Answer, Function
    from privfl.learn.update_inputs import Arrays, Ask

__all__ = ["PLAIN_REFUSED", "PrivateApp", "Site", "private"]

log = logging.getLogger("privfl.flower")

PLAIN_REFUSED = (
    "this node answers through privfl only: wrap the strategy with privfl.flower.PrivateStrategy. A plain message "
    "would carry a single site's update"
)
SCHEMA, ANSWER_AFTER = "privfl-schema", "privfl-answer-after-ms"


def private(app: ClientApp, *, passphrase: str | None = None, hold: float = HOLD_S) -> PrivateApp:
    """Make an app private: only privfl's rounds reach its functions from now on.

    Args:
        app: with ``@app.train()``, and perhaps ``@app.evaluate()``, before or after this line.
        passphrase: of the site's key store; by default PRIVFL_PASSPHRASE, or the file PRIVFL_PASSPHRASE_FILE.
        hold: seconds a message waits while another one of this node has the site's folder.

    Raises:
        Misuse: an app around a ``client_fn``, whose answers are of another kind; give it train and evaluate functions.
    """
    return PrivateApp(app, passphrase, hold)


class PrivateApp(ClientApp):
    """A ClientApp whose functions only its site's rounds can call; make one with :func:`private`."""

    def __init__(self, app: ClientApp, passphrase: str | None = None, hold: float = HOLD_S) -> None:
        super().__init__()
        if isinstance(app, PrivateApp):
            raise Misuse("this app is private already")
        if not isinstance(app, ClientApp) or app._call is not None:
            raise Misuse(
                "private() takes a ClientApp with @app.train() and @app.evaluate(); one around a client_fn answers in "
                "another form: move its code into such functions"
            )
        self._inner, self._word, self._hold = app, passphrase, hold

    # what is registered after the line is registered in the app itself
    def train(self, *args: Any, **kwargs: Any) -> Any:
        """See ClientApp."""
        return self._inner.train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """See ClientApp."""
        return self._inner.evaluate(*args, **kwargs)

    def query(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises Misuse: a query would carry a single site's answer."""
        raise Misuse("a private app answers no query: its answer would be a single site's; ask for a statistic instead")

    def lifespan(self) -> Any:
        """See ClientApp; it is entered around each call of a function."""
        return self._inner.lifespan()

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer the courier; refuse everything else without calling anything. Never raises."""
        if message.metadata.message_type != f"query.{ACTION}":
            log.warning("a plain message (%a) was refused: this app is private", message.metadata.message_type)
            return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, PLAIN_REFUSED), reply_to=message)
        try:
            return self._exchanged(message, context)
        except WireError as error:
            log.error("%s", error)
            problem = "the spool of this node's site cannot be used; its operator was told why"
        except PrivflError as error:
            log.error("%s", error)
            problem = getattr(error, "public", AT_FAULT)
        except Exception as error:  # Flower would send its text on
            log.error("carrying mail failed: %s", type(error).__name__)
            problem = AT_FAULT
        return Message(packed(Load(problem=problem), ()), reply_to=message)

    def _exchanged(self, message: Message, context: Context) -> Message:
        from privfl.flower.resident import site_wire  # noqa: PLC0415 - after the cheap checks

        home = site_home(context.node_config).absolute()  # the app's functions may change the working directory
        wire = site_wire(home)  # a site of another wire is no use here
        site = Site(home, self._word, partial(self._called, message, context), *_settings(context, home))
        carrier = carrier_of(home)
        if not wire.resident:
            from privfl.flower.private_visitor import Opened  # noqa: PLC0415 - all that a site needs

            return exchange(message, carrier, Opened(site), hold=self._hold)
        from privfl.flower.private_resident import Served  # noqa: PLC0415

        with Served(site, wire.idle) as work:  # listens before any mail is taken in
            return exchange(message, carrier, work, hold=self._hold)

    def _called(self, message: Message, context: Context, ask: Ask, arrays: Arrays) -> Answer:
        """One call of the app's own function; what it returns stays at this site."""
        from privfl.flower.private_records import answer_of, message_of  # noqa: PLC0415 - where there is a call
        from privfl.learn.update_answers import Fault  # noqa: PLC0415

        category, _, action = ask.kind.partition(".")
        if f"{category}.{action or 'default'}" not in self._inner._registered_funcs:
            raise Fault(f"the app has no function for {ask.kind}", "missing")
        return answer_of(self._inner(message_of(message, ask, arrays), context), category)


@dataclass(frozen=True, repr=False)
class Site:
    """The site of one message. ``word``: its passphrase, if not the environment's. ``call``: the app's functions.

    ``pinned``: the file of its schema. ``after``: milliseconds after an announcement at which every answer leaves.
    """

    home: Path
    word: str | None
    call: Function
    pinned: Path
    after: int


def _settings(context: Context, home: Path) -> tuple[Path, int]:
    """The schema's file and the milliseconds that this node is configured for; raises Misuse."""
    schema = context.node_config.get(SCHEMA)
    pinned = Path(schema).expanduser().absolute() if isinstance(schema, str) else home / "schema.yaml"
    after = context.node_config.get(ANSWER_AFTER, 0)
    if isinstance(after, bool) or not isinstance(after, int) or after < 0:
        raise Misuse(f"{ANSWER_AFTER} of this node is {after!a:.40}; write milliseconds, 0 or more")
    return pinned, after
