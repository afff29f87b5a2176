"""A generalist's server in a process of its own, to be killed: the OpenAI API and no model.

python tests/mortal_generalist.py PORT. It says the first label, of which it is fairly sure.
"""

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from listening import free_port

MODEL = "mortal"
LABELS = ("normal", "pneumonia")
ANSWER_SECONDS = 0.02
_STARTS_WITHIN_SECONDS = 20


@dataclass
class Mortal:
    """The server; it dies without a word and may come back at the same address."""

    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, str(self.port)])
        deadline = time.monotonic() + _STARTS_WITHIN_SECONDS
        while not self._answers():
            assert time.monotonic() < deadline, "the generalist's server does not start"
            time.sleep(0.05)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/v1/models", trust_env=False).is_success
        except httpx.TransportError:
            return False


@contextmanager
def a_mortal_generalist() -> Iterator[Mortal]:
    """A server that lives until it is killed, at the end of the block at the latest."""
    mortal = Mortal()
    try:
        mortal.start()
        yield mortal
    finally:
        mortal.kill()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._reply({"data": [{"id": MODEL}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(ANSWER_SECONDS)
        text = body["messages"][0]["content"][1]["text"]
        labels = [label for label in LABELS if re.search(label, text)] or list(LABELS)
        shares = [0.9, 0.1][: len(labels)]
        listed = [
            {"token": label, "logprob": math.log(share)}
            for label, share in zip(labels, shares, strict=True)
        ]
        first = {"message": {"content": labels[0]}, "finish_reason": "length"}
        first["logprobs"] = {"content": [{"top_logprobs": listed}]}
        self._reply({"model": MODEL, "choices": [first]})

    def _reply(self, document: Any) -> None:
        octets = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


if __name__ == "__main__":
    _Server(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
