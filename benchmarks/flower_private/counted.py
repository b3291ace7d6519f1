"""A ClientApp whose replies are weighed as Flower will send them; nothing of privfl is loaded here."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects


class Counted(ClientApp):
    """Calls ``app`` and adds a line about each reply to the file that the node's configuration ``replies`` names."""

    def __init__(self, app: ClientApp) -> None:
        super().__init__()
        self._app = app

    def __call__(self, message: Message, context: Context) -> Message:
        """As the app itself. Flower starts a process for each message, so that its processor time is that of one."""
        asked = _size(message)
        reply = self._app(message, context)
        said: dict[str, Any] = {
            "at": time.monotonic(),
            "kind": message.metadata.message_type,
            "bytes": _size(reply),
            "asked": asked,
            "processor": time.process_time(),
        }
        with Path(str(context.node_config["replies"])).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(said) + "\n")
        return reply


def _size(message: Message) -> int:
    """Bytes of all objects that a message consists of, as they go over the wire."""
    return sum(len(one.deflate()) for one in get_all_nested_objects(message).values())
