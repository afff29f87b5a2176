"""Sends what is new in Orthanc to gsco, and again until gsco has it. Needs Python, nothing else.

    ORTHANC_USER=gsco ORTHANC_PASSWORD=… python3 follow.py --orthanc http://127.0.0.1:8042 \
        --modality gsco --cursor /var/lib/gsco/orthanc.cursor

It reads /changes, where Orthanc notes every new instance together with the instance itself, and
keeps how far it has come in the file `--cursor`. Orthanc, gsco and this script may each be killed
at any time: what was not sent is sent later, and what is sent twice gsco knows already. Objects
without an image, and those that gsco wrote, are left out.
"""

import argparse
import base64
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

NO_IMAGES = {"SR", "KO", "PR", "SEG", "DOC", "REG", "RTSTRUCT", "RTPLAN", "RTDOSE"}
PAGE = 100
LONGEST_WAIT = 60.0
BUSY, FAILED, REFUSED = "busy", "failed", "refused"  # or away; for no reason known; for good
MOST_FAILURES = 5  # of one instance, for no reason known: the others must not wait for it


class Orthanc:
    """The REST API of one Orthanc."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url.rstrip("/")
        secret = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {secret}"} if user else {}

    def get(self, path: str) -> Any:
        return self._ask(urllib.request.Request(self._url + path, headers=self._headers))

    def post(self, path: str, document: Any) -> Any:
        body = json.dumps(document).encode()
        return self._ask(urllib.request.Request(self._url + path, body, self._headers))

    def _ask(self, request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(request, timeout=300) as reply:
            return json.load(reply)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orthanc", required=True, help="address of its REST API")
    parser.add_argument("--modality", default="gsco", help="gsco's name in DicomModalities")
    parser.add_argument("--cursor", required=True, type=Path, help="a file of this script's own")
    parser.add_argument("--seconds", type=float, default=2.0, help="between two looks")
    given = parser.parse_args()
    user, password = os.environ.get("ORTHANC_USER", ""), os.environ.get("ORTHANC_PASSWORD", "")
    orthanc = Orthanc(given.orthanc, user, password)
    if not given.orthanc.startswith(("http://", "https://")):
        parser.error("--orthanc begins with http:// or https://")
    follow(orthanc, given.modality, given.cursor, given.seconds)


def follow(orthanc: Orthanc, modality: str, cursor: Path, seconds: float) -> None:
    """Never returns."""
    since, failures = read(cursor), 0
    while True:
        try:
            page = orthanc.get(f"/changes?since={since}&limit={PAGE}")
            for change in page["Changes"]:
                take(orthanc, modality, change)
                since = change["Seq"]
                keep(cursor, since)
            failures = 0
        except (OSError, ValueError, HTTPException) as error:  # away, or killed while it answered
            failures += 1
            say(f"Orthanc does not answer ({type(error).__name__}): trying again")
        if failures or page["Done"]:
            time.sleep(min(seconds * 2.0**failures, LONGEST_WAIT))


def take(orthanc: Orthanc, modality: str, change: dict[str, Any]) -> None:
    """One change; returns when gsco has what is new, or wants it not, or it is gone."""
    instance = change["ID"]
    if change["ChangeType"] != "NewInstance":
        return
    attempts = failures = 0
    while is_for_us(orthanc, instance):
        refusal = send(orthanc, modality, instance)
        if refusal is None:
            return
        attempts, failures = attempts + 1, failures + (refusal == FAILED)
        if refusal == REFUSED or failures == MOST_FAILURES:
            say(f"gsco does not want instance {instance}: it is left out")
            return
        time.sleep(min(2.0**attempts, LONGEST_WAIT))


def is_for_us(orthanc: Orthanc, instance: str) -> bool:
    """Whether it is there, holds an image, and is not gsco's own."""
    try:
        tags = orthanc.get(f"/instances/{instance}/simplified-tags")
    except urllib.error.HTTPError as error:
        if error.code == 404:  # removed meanwhile
            return False
        raise
    return tags.get("Manufacturer") != "GSCo" and tags.get("Modality") not in NO_IMAGES


def send(orthanc: Orthanc, modality: str, instance: str) -> str | None:
    """Why gsco has not taken the instance; raises OSError where Orthanc itself does not answer."""
    try:
        orthanc.post(f"/modalities/{modality}/store", {"Resources": [instance]})
    except urllib.error.HTTPError as error:
        details = str(json.load(error).get("Details", ""))
        say(f"instance {instance}: {details}")
        return meaning(details)
    return None


def meaning(details: str) -> str:
    """What Orthanc's sentence says of the next attempt (PS3.4 table B.2-1 for the statuses)."""
    if "presentation context" in details:  # a sort of object, or a compression, that is not taken
        return REFUSED
    status = re.search(r"DIMSE status 0x([0-9A-F]{4})", details)
    if status is None or status[1].startswith("A7"):
        return BUSY
    return REFUSED if status[1][:2] == "A9" or status[1][0] == "C" else FAILED


def read(cursor: Path) -> int:
    return int(cursor.read_text()) if cursor.exists() else 0


def keep(cursor: Path, since: int) -> None:
    """A file that is there is whole."""
    fresh = cursor.with_suffix(".part")
    fresh.write_text(str(since))
    fresh.replace(cursor)


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
