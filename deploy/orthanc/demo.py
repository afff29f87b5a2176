"""`make pacs-demo`: a radiograph goes into Orthanc, and comes back with a report and a heat map.

Starts Orthanc, as orthanc.json and gsco.lua here say, and gsco with its demo home; stores a chest
phantom with storescu, waits for the results in its study, and shows them. All of it on this
machine, in a folder that is removed afterwards. GSCO_HOME is prepared and kept, if it is set.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import httpx

from service.demo import home, phantoms, tasks
from service.errors import GscoError
from service.settings import read_settings

HERE = Path(__file__).parent
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "gsco", "pacs-demo"
START_SECONDS, ANSWER_SECONDS = 60, 30
TASK, LABEL, SEED = "phantom-cxr", "pneumonia", 7


def main() -> None:
    tools = {name: tool(name) for name in ("Orthanc", "storescu", "dsrdump")}
    if not PLUGIN.exists():
        stop(f"{PLUGIN} is missing")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gsco-pacs-demo-") as folder:
        try:
            show(Path(folder), tools)
        except GscoError as error:
            stop(str(error))
    say(f"\n{time.monotonic() - began:.0f} s. Synthetic image, nano models: no measure of quality.")


def show(folder: Path, tools: dict[str, str]) -> None:
    settings = read_settings(home=Path(os.environ.get("GSCO_HOME", folder / "home")))
    say(f"preparing {settings.home}")
    home.prepare(settings, lambda task: say(f"  {task}"), only=TASK)
    dicom, http, scp, api = (free_port() for _ in range(4))
    say("starting Orthanc and gsco")
    with (
        running([tools["Orthanc"], str(configured(folder, http, dicom, scp))], folder / "orthanc"),
        running(gsco(), folder / "gsco", environment(settings.home, folder, http, scp, api)),
        httpx.Client(
            base_url=f"http://127.0.0.1:{http}", auth=(USER, PASSWORD), trust_env=False
        ) as pacs,
    ):
        wait(lambda: pacs.get("/system").is_success, START_SECONDS, "Orthanc", folder / "orthanc")
        wait(lambda: is_ready(api), START_SECONDS, "gsco", folder / "gsco")
        image = folder / "chest.dcm"
        phantoms.write_dicom(phantoms.draw("chest", [LABEL], SEED, tasks.SIZE), image)
        say(f"storing a chest phantom with {LABEL}, as a scanner would")
        store = [tools["storescu"], "-aet", "SCANNER", "-aec", "ORTHANC", "127.0.0.1", str(dicom)]
        subprocess.run([*store, str(image)], check=True, env=without_settings())
        wait(
            lambda: {"SR", "OT"} <= set(series(pacs)),
            ANSWER_SECONDS,
            "the answer",
            folder / "orthanc",
        )
        tell(pacs, tools["dsrdump"], folder)


def tell(pacs: httpx.Client, dsrdump: str, folder: Path) -> None:
    """The tree of the structured report, and the series of the study."""
    found = series(pacs)
    report = folder / "sr.dcm"
    report.write_bytes(pacs.get(f"/instances/{found['SR']['Instances'][0]}/file").content)
    subprocess.run([dsrdump, str(report)], check=True, stdout=sys.stdout)
    print("\nSeries of the study, now:")
    for modality, one in found.items():
        said = one["MainDicomTags"]
        name, maker = said.get("SeriesDescription", "–"), said.get("Manufacturer", "–")
        print(f"  {modality:3} {len(one['Instances'])} instance(s)  {maker:15} {name}")
    sys.stdout.flush()


def series(pacs: httpx.Client) -> dict[str, Any]:
    """The series of the only study there is, by modality."""
    found = pacs.get("/series", params={"expand": ""}).json()
    return {one["MainDicomTags"]["Modality"]: one for one in found}


def configured(folder: Path, http: int, dicom: int, scp: int) -> Path:
    """The configuration of this folder, with free ports and a place of its own."""
    configuration = json.loads((HERE / "orthanc.json").read_text()) | {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "LuaScripts": [str(HERE / "gsco.lua")],
        "HttpPort": http,
        "DicomPort": dicom,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomModalities": {
            "gsco": ["GSCO", "127.0.0.1", scp],
            "scanner": ["SCANNER", "127.0.0.1", 104],
        },
        "StableAge": 1,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration))
    return path


def environment(place: Path, folder: Path, http: int, scp: int, api: int) -> dict[str, str]:
    """gsco's settings: who may send, and where answers go."""
    url = f"http://127.0.0.1:{http}/dicom-web"
    target = {"name": "orthanc", "url": url, "user": USER, "password": PASSWORD}
    return without_settings() | {
        "GSCO_HOME": str(place),
        "GSCO_DATABASE_URL": f"sqlite:///{(place / 'gsco.db').absolute()}",
        "GSCO_SPOOL_FOLDER": str(folder / "spool"),
        "GSCO_PORT": str(api),
        "GSCO_DICOM_PORT": str(scp),
        "GSCO_DICOM_PEERS": "ORTHANC=127.0.0.1",
        "GSCO_PACS_TARGETS": json.dumps([target]),
        "GSCO_PSEUDONYM_KEY": "a secret of the demonstration",
        "GSCO_LOG_LEVEL": "info",
    }


def without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("GSCO_")}


def gsco() -> list[str]:
    return [sys.executable, "-c", "from service.cli.main import main; main(['serve'])"]


@contextmanager
def running(
    command: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[None]:
    """A process of ours, ended with the demonstration; what it says goes to a file."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def wait(holds: Callable[[], bool], seconds: float, what: str, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if holds():
                return
        time.sleep(0.2)
    raise GscoError(f"{what} did not come in {seconds:g} s:\n{log.read_text()[-3000:]}")


def is_ready(api: int) -> bool:
    parts = httpx.get(f"http://127.0.0.1:{api}/readyz", trust_env=False)
    return parts.is_success and "being loaded" not in parts.text


def tool(name: str) -> str:
    """A program of the system: pynetdicom has put others of the same names beside Python.

    PACS_DEMO_TOOLS names the folders to look in, where they are others.
    """
    folders = os.environ.get("PACS_DEMO_TOOLS", "/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
    return shutil.which(name, path=folders) or stop(f"{name} is missing")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop(sentence: str) -> NoReturn:
    say(
        f"pacs-demo: {sentence}. It needs Orthanc with its DICOMweb plugin, and DCMTK: "
        "apt-get install --no-install-recommends orthanc orthanc-dicomweb dcmtk"
    )
    sys.exit(2)


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
