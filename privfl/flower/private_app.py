"""The client's line: ``app = private(app)`` puts a ClientApp's own functions behind its site's policy and ledger.

What comes in is the courier's mail alone. The site is opened inside this process, since the app's functions live here;
they are called after the charge, and what they return goes into the masked, noised vector and nowhere else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from privfl.errors import Misuse, PrivflError, WireError
from privfl.flower.client import ACTION, AT_FAULT, HOLD_S, Worked, carrier_of, exchange, site_home
from privfl.flower.records import packed
from privfl.wires.flower_carry import Carrier, Load

__all__ = ["PLAIN_REFUSED", "PrivateApp", "private"]

log = logging.getLogger("privfl.flower")

PLAIN_REFUSED = (
    "this node answers through privfl only: wrap the strategy with privfl.flower.PrivateStrategy. A plain message "
    "would carry a single site's update"
)
SCHEMA, ANSWER_AFTER = "privfl-schema", "privfl-answer-after-ms"
PAUSE_S = 0.02


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
        site_wire(home)  # a site of another wire is no use here
        schema = context.node_config.get(SCHEMA)
        pinned = Path(schema).expanduser() if isinstance(schema, str) else home / "schema.yaml"
        after = context.node_config.get(ANSWER_AFTER, 0)
        if isinstance(after, bool) or not isinstance(after, int) or after < 0:
            raise Misuse(f"{ANSWER_AFTER} of this node is {after!a:.40}; write milliseconds, 0 or more")
        work = _Site(home, self._word, self._inner, message, context, pinned, after)
        return exchange(message, carrier_of(home), work, hold=self._hold)


class _Site:
    """The site of one message, opened once while there is mail for it."""

    def __init__(
        self, home: Path, word: str | None, app: ClientApp, message: Message, context: Context, pinned: Path, after: int
    ) -> None:
        self._home, self._word, self._app = home, word, app
        self._message, self._context, self._pinned, self._after = message, context, pinned, after

    def __call__(self, carrier: Carrier, hold: float, hello: bool) -> Worked:
        """See :data:`privfl.flower.client.Work`. Where another message has the folder, its work is waited for."""
        until = time.monotonic() + hold
        while carrier.unread():
            try:
                self._serve(lambda: not carrier.unread())
                return Worked()
            except PrivflError as error:
                from privfl.homes.lock import holder  # noqa: PLC0415

                if holder(self._home) is None:
                    log.error("%s", error)
                    return Worked(problem="the site could not be opened or went on strike; its operator was told why")
            if time.monotonic() >= until:
                return Worked(working=True)
            time.sleep(PAUSE_S)
        return Worked()

    def _serve(self, done: Callable[[], bool]) -> None:
        from privfl.flower.resident import passphrase  # noqa: PLC0415 - and below: only where there is mail
        from privfl.learn.update_data import AppData  # noqa: PLC0415
        from privfl.learn.update_schema import app_schema  # noqa: PLC0415
        from privfl.runtime.site_process import run_site  # noqa: PLC0415

        run_site(
            self._home,
            passphrase(self._home) if self._word is None else self._word,
            stop=done,
            answer_after_ms=self._after,
            data=lambda site: AppData(app_schema(site.policy, self._pinned), self._call),
        )

    def _call(self, ask: Any, arrays: Any) -> Any:
        """One call of the app's own function; what it returns stays in this process."""
        from privfl.flower.private_records import answer_of, message_of  # noqa: PLC0415
        from privfl.learn.update_data import Fault  # noqa: PLC0415

        category, _, action = ask.kind.partition(".")
        if f"{category}.{action or 'default'}" not in self._app._registered_funcs:
            raise Fault(f"the app has no function for {ask.kind}")
        return answer_of(self._app(message_of(self._message, ask, arrays), self._context), category)
