"""Images by C-STORE: a storage SCP that diagnoses what allowed peers send (PS3.4 annex B).

Success is answered when the diagnosis is stored, so that whoever sent an image keeps it until
then. pynetdicom has a thread per association; the work is done on the event loop.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from service.errors import Misconfigured
from service.pacs.status import OUT_OF_RESOURCES, SUCCESS, Status, status_of
from service.pacs.syntaxes import decodable_syntaxes

Receive = Callable[[bytes, str, str], Awaitable[object]]
"""Takes a DICOM file, the name of its task (empty: chosen by rule) and the AE title of the sender;
returns when it is diagnosed and stored."""

_LONGEST_PDU = 2**20  # bytes; more than is offered, and less than would hurt
_OFFERED_PDU = 2**17
_PERMANENT, _BY_USER = 0x01, 0x01
_UNKNOWN_CALLER, _UNKNOWN_CALLED = 0x03, 0x07  # PS3.8 table 9-21

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, as whom, to whom: AE titles with their tasks, peers with their addresses.

    A peer that is silent for `timeout_seconds` loses its association.
    """

    host: str
    port: int
    ae_titles: Mapping[str, str]
    peers: Mapping[str, str]
    max_associations: int = 10
    max_instance_bytes: int = 64 * 2**20
    timeout_seconds: float = 30.0


class StoreScp:
    """Receives from `start` to `close`, both called on the event loop that does the work."""

    def __init__(self, address: Address, receive: Receive) -> None:
        self._address = address
        self._receive = receive
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: ThreadedAssociationServer | None = None
        self._running: set[Future[object]] = set()
        self._received: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1]) if self._server else self._address.port

    async def start(self) -> None:
        """Begin to listen; raises Misconfigured where the address cannot be had."""
        self._loop = asyncio.get_running_loop()
        try:
            self._server = await asyncio.to_thread(self._listen)
        except OSError as error:
            where = f"{self._address.host}:{self._address.port}"
            raise Misconfigured(f"cannot receive DICOM on {where}: {error.strerror}") from error
        log.info("receiving C-STORE", host=self._address.host, port=self.port)

    async def close(self) -> None:
        """Stop listening and give up what is being diagnosed: its senders keep it."""
        server, self._server = self._server, None
        for running in tuple(self._running):
            running.cancel()
        if server is not None:
            await asyncio.to_thread(_end, server)

    def _listen(self) -> ThreadedAssociationServer:
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # it quotes identifiers
        entity = AE(ae_title=next(iter(self._address.ae_titles)))
        entity.maximum_associations = self._address.max_associations
        entity.maximum_pdu_size = _OFFERED_PDU
        entity.acse_timeout = entity.network_timeout = self._address.timeout_seconds
        entity.add_supported_context(Verification)
        syntaxes = decodable_syntaxes()
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), syntaxes)
        server = entity.make_server(
            (self._address.host, self._address.port),
            evt_handlers=[
                (evt.EVT_CONN_OPEN, self._limit),
                (evt.EVT_REQUESTED, self._admit),
                (evt.EVT_PDU_RECV, self._count),
                (evt.EVT_C_STORE, self._store),
            ],
            server_class=_server_for(frozenset(self._address.peers.values())),
        )
        entity._servers.append(server)  # as AE.start_server does, which knows no other class
        threading.Thread(target=server.serve_forever, name="c-store", daemon=True).start()
        return server

    def _limit(self, event: Any) -> None:
        """A protocol data unit says its own length: no more is read than one can sensibly have."""
        socket = event.assoc.dul.socket
        receive = socket.recv
        socket.recv = lambda count: receive(count) if count <= _LONGEST_PDU else bytearray()

    def _admit(self, event: Any) -> None:
        """Refuse whom we do not know, and who means somebody else."""
        asked = event.assoc.requestor.primitive
        caller, called = str(asked.calling_ae_title).strip(), str(asked.called_ae_title).strip()
        if self._address.peers.get(caller) != event.assoc.requestor.address:
            log.warning("association refused", reason="unknown caller")
            _reject(event.assoc, _UNKNOWN_CALLER)
        elif called not in self._address.ae_titles:
            log.warning("association refused", reason="unknown called AE title", caller=caller)
            _reject(event.assoc, _UNKNOWN_CALLED)

    def _count(self, event: Any) -> None:
        """End an association whose message outgrows an instance: it would be held in memory."""
        if type(event.pdu).__name__ != "P_DATA_TF":
            return
        received = self._received.get(event.assoc, 0) + event.pdu.pdu_length
        self._received[event.assoc] = received
        if received > self._address.max_instance_bytes:
            log.warning("association ended", reason="an instance is too large")
            event.assoc.abort()

    def _store(self, event: Any) -> Dataset:
        """The C-STORE response; runs in the association's thread."""
        self._received.pop(event.assoc, None)
        asked = event.assoc.requestor.primitive
        task = self._address.ae_titles[str(asked.called_ae_title).strip()]
        status = self._taken(event.encoded_dataset(), task, str(asked.calling_ae_title).strip())
        event.assoc.dul._idle_timer.restart()  # it was we who were silent
        response = Dataset()
        response.Status = status.code
        if status.comment:
            response.ErrorComment = status.comment
        return response

    def _taken(self, data: bytes, task: str, caller: str) -> Status:
        if self._loop is None or self._server is None:
            return Status(OUT_OF_RESOURCES, "the service is stopping")
        work = asyncio.run_coroutine_threadsafe(
            _done(self._receive(data, task, caller)), self._loop
        )
        self._running.add(work)
        try:
            work.result()
        except CancelledError:
            return Status(OUT_OF_RESOURCES, "the service is stopping")
        except Exception as error:  # noqa: BLE001 - each has its status, and the association goes on
            return status_of(error)
        finally:
            self._running.discard(work)
        return Status(SUCCESS)


def _reject(association: Any, diagnostic: int) -> None:
    association.acse.send_reject(_PERMANENT, _BY_USER, diagnostic)
    association.kill()  # waits until the refusal is sent: the socket is closed next


async def _done(work: Awaitable[object]) -> object:
    return await work


def _server_for(hosts: frozenset[str]) -> type[ThreadedAssociationServer]:
    """A server that hangs up on other machines before it reads a byte from them."""

    class _Server(ThreadedAssociationServer):
        def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
            return str(client_address[0]) in hosts

    return _Server


def _end(server: ThreadedAssociationServer) -> None:
    server.shutdown()
    for association in server.active_associations:
        association.abort()
