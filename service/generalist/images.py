"""How an image travels to a server: whole at first, then by a name under which it is kept there."""

import hmac
import secrets
import time
from weakref import WeakKeyDictionary, WeakSet

from service.domain import Image
from service.generalist import protocol

NAME_CHARACTERS = 32
MOST_IN_VAIN = 8  # names in a row that the server did not know
PAUSE_SECONDS = 60.0  # without names then: a server may be told to keep nothing


class SentImages:
    """What of every image goes into a request.

    vLLM keeps the images it was sent, each under the name given with it (`uuid`), and knows them
    by that name alone: an arbitration need not send, nor the server decode, what the initial
    diagnosis has sent. Other servers are sent every image whole, and for a while so is vLLM where
    names are in vain: it may keep nothing, or be many behind one address.
    """

    def __init__(self) -> None:
        self.server_keeps = False
        self._urls: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        self._kept: WeakSet[Image] = WeakSet()
        self._key = secrets.token_bytes(32)
        self._in_vain = 0
        self._resumed = 0.0  # when names are used again

    def whole(self, image: Image) -> protocol.Body:
        """Encoded once, however often it is sent; slow for a large image."""
        url = self._urls.get(image) or protocol.data_url(image)
        self._urls[image] = url
        return protocol.image_part(url, self._name(image))

    def by_name(self, image: Image) -> protocol.Body | None:
        """Nothing but the name, once the server should know it."""
        if not self.server_keeps or image not in self._kept or time.monotonic() < self._resumed:
            return None
        return protocol.image_part(None, self._name(image))

    def arrived(self, image: Image) -> None:
        self._kept.add(image)

    def known(self) -> None:
        """The server answered by a name."""
        self._in_vain = 0

    def lost(self, image: Image) -> None:
        """The server needed the room, was started anew, or another one answered."""
        self._kept.discard(image)
        self._in_vain += 1
        if self._in_vain >= MOST_IN_VAIN:
            self._in_vain, self._resumed = 0, time.monotonic() + PAUSE_SECONDS

    def _name(self, image: Image) -> str | None:
        """By what the image shows, and not to be guessed by others who use the server."""
        if not self.server_keeps:
            return None
        digest = hmac.digest(self._key, image.pixels_sha256.encode(), "sha256")
        return digest.hex()[:NAME_CHARACTERS]
