"""The libraries that talk to a cloud log requests, headers and keys; none of that reaches a log of privfl."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from privfl.runtime.logs import LIBRARIES, configure
from tests.runtime.test_logs import untouched

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")

KEY, SECRET, TOKEN = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "FwoGZXIvYXdzEXAMPLETOKEN"
BODY = b"a masked vector of seventeen bytes"
ANSWER = b"<Error><Code>AccessDenied</Code><Message>row 17 holds 0.8125</Message></Error>"
TRACES = [KEY, SECRET, TOKEN, BODY.decode(), "Signature", "AWS4-HMAC", "0.8125", "X-Amz", "Authorization"]


@pytest.fixture(autouse=True)
def _afterwards() -> Iterator[None]:
    """Leave the loggers as they were found, also the inner ones."""
    inner = [logging.getLogger(name) for name in ("botocore.auth", "botocore.endpoint", "urllib3.connectionpool")]
    before = [one.level for one in inner]
    with untouched():
        yield
    for one, level in zip(inner, before, strict=True):
        one.setLevel(level)


@pytest.fixture
def server() -> Iterator[str]:
    """A cloud that refuses everything and tells why in its body."""

    class Refusing(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(403)
            self.send_header("Content-Length", str(len(ANSWER)))
            self.end_headers()
            self.wfile.write(ANSWER)

        do_GET = do_PUT  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    made.server_close()
    thread.join()


def client(endpoint: str) -> Any:
    """A client of S3 with made-up keys."""
    config = Config(retries={"total_max_attempts": 2}, s3={"addressing_style": "path"}, connect_timeout=5)
    return boto3.client(
        "s3",
        region_name="eu-central-1",
        endpoint_url=endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        aws_session_token=TOKEN,
        config=config,
    )


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_real_client_at_its_most_talkative(format: Literal["text", "json"], server: str, tmp_path: Path) -> None:
    """A body sent, a pre-signed address used, an endpoint that is not there; every inner logger asked for all."""
    path = tmp_path / "site.log"
    configure(format, file=path, level="debug", who="north")
    for name in ("botocore.auth", "botocore.endpoint", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    heard: list[str] = []
    listening = logging.Handler()
    listening.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    for name in LIBRARIES:
        logging.getLogger(name).addHandler(listening)
    for endpoint in (server, "http://127.0.0.1:9"):
        s3 = client(endpoint)
        with suppress(ClientError, BotoCoreError):
            s3.put_object(Bucket="bodies", Key="trial/x", Body=BODY)
        with suppress(ClientError, BotoCoreError):
            s3.get_object(Bucket="bodies", Key="trial/x")
        s3.generate_presigned_url("get_object", {"Bucket": "bodies", "Key": "x"})
        s3.close()
    logging.getLogger("privfl.test").info("the end")
    assert any("AWS4-HMAC" in words for words in heard)  # the libraries did say it
    text = path.read_text()
    assert "the end" in text
    assert not [trace for trace in TRACES if trace in text]


EVIL = [
    ("refreshing failed for %s", (SECRET,)),
    (f"Retrying after https://bodies.s3/x?X-Amz-Signature={SECRET}", ()),
    (BODY, ()),
    ({"Authorization": TOKEN}, ()),
    ("%(key)s", ({"key": KEY},)),
]


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.WARNING, logging.CRITICAL])
@pytest.mark.parametrize("name", [*LIBRARIES, "botocore.credentials", "urllib3.connectionpool", "flwr", "flwr.grid"])
def test_whatever_a_library_says(name: str, level: int, tmp_path: Path) -> None:
    """No argument, no text that was put together, no exception's words; a warning leaves its template and place."""
    path = tmp_path / "site.log"
    configure("json", file=path, level="debug", who="north")
    log = logging.getLogger(name)
    for message, args in EVIL:
        try:
            raise ValueError(SECRET)
        except ValueError:
            log.log(level, message, *args, exc_info=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert not [trace for trace in TRACES if trace in json.dumps(lines)]
    if level < logging.WARNING or name.startswith("flwr"):
        assert lines == []
        return
    assert [line["logger"] for line in lines] == [name] * len(EVIL)
    assert lines[0]["message"].startswith("refreshing failed for %s (at test_logs_libraries.py:")
    assert lines[1]["message"].startswith("a message that is not shown (at ")
    assert lines[0]["error"].startswith("ValueError at test_logs_libraries.py:")


def test_a_library_with_the_own_beginning(tmp_path: Path) -> None:
    """``privfl_other`` is no part of ``privfl``."""
    path = tmp_path / "site.log"
    configure("text", file=path, who="north")
    logging.getLogger("privfl").handle(logging.LogRecord("privfl_other", 40, "x.py", 1, SECRET, (), None))
    assert SECRET not in path.read_text()
