"""Bodies of many DICOM objects: whole or in pieces, honest or not."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ImageTooLarge, InvalidInput
from service.pacs.multipart import boundary_of, parts

TYPE = 'multipart/related; type="application/dicom"; boundary=edge'


def body(*contents: bytes, kind: str = "application/dicom") -> bytes:
    head = f"--edge\r\nContent-Type: {kind}\r\n\r\n".encode()
    return b"".join(head + content + b"\r\n" for content in contents) + b"--edge--\r\n"


async def read(
    data: bytes, *, piece: int = 7, content_type: str = TYPE, max_part_bytes: int = 100
) -> list[bytes]:
    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(data), piece):
            yield data[start : start + piece]

    return [part async for part in parts(stream(), content_type, max_part_bytes)]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.integers(1, 200))
async def test_parts_come_out_as_they_went_in(contents: list[bytes], piece: int) -> None:
    safe = [content.replace(b"--edge", b"") for content in contents]

    assert await read(body(*safe), piece=piece) == safe


async def test_first_part_is_there_before_the_second_has_come() -> None:
    seen: list[str] = []

    async def stream() -> AsyncIterator[bytes]:
        whole = body(b"one", b"two")
        middle = whole.index(b"two")
        yield whole[:middle]
        seen.append("the rest")
        yield whole[middle:]

    async for part in parts(stream(), TYPE, 100):
        seen += [part.decode()]

    assert seen == ["one", "the rest", "two"]


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/related; type="application/dicom"; boundary="a b/c"',
        "Multipart/Related; boundary=edge",
        'multipart/related; type="application/dicom;transfer-syntax=*"; boundary=edge',
    ],
)
def test_content_types_of_the_wild_are_understood(content_type: str) -> None:
    assert boundary_of(content_type) in {"a b/c", "edge"}


@pytest.mark.parametrize(
    ("content_type", "reason"),
    [
        ("application/dicom", "must be multipart/related"),
        ("multipart/related", "with a boundary"),
        ('multipart/related; type="application/dicom+xml"; boundary=edge', "must say type"),
        (f"multipart/related; boundary={'e' * 300}", "boundary of the body is not usable"),
        ("", "must be multipart/related"),
    ],
)
async def test_other_content_types_are_refused(content_type: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        await read(body(b"one"), content_type=content_type)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (body(b"one")[:-9], "ends before its last boundary"),
        (b"", "ends before its last boundary"),
        (b"no boundary at all", "not the multipart message"),
        (b"--edge\r\nContent-Type application/dicom\r\n\r\none", "not the multipart message"),
        (b"--edge\r\n" + b"A" * 9999 + b": b\r\n\r\n", "not the multipart message"),
        (body(b"one", kind="text/html"), "every part must be application/dicom"),
    ],
)
async def test_broken_bodies_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        await read(data)


async def test_part_that_is_too_large_is_refused_while_it_comes() -> None:
    with pytest.raises(ImageTooLarge, match="larger than 10 bytes"):
        await read(body(b"x" * 11), max_part_bytes=10)


async def test_what_comes_after_the_end_is_ignored() -> None:
    assert await read(body(b"one") + b"epilogue") == [b"one"]
