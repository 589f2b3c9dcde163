"""Parts of a message from files, bytes and addresses; what cannot be sent is refused by name."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.support.tables import row

from chatscope import ChatClient, content

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(16))
JPEG = b"\xff\xd8\xff\xe0" + bytes(8)
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt "
PDF = b"%PDF-1.7\n"


def encoded(data: bytes) -> str:
    return b64encode(data).decode()


def test_text() -> None:
    assert content.text("hi") == {"type": "text", "text": "hi"}


def test_an_address_of_an_image_is_sent_as_it_is() -> None:
    rows: list[str] = ["https://example.com/a.png", "http://example.com/a", "data:image/png;base64,AAAA"]
    for url in rows:
        with row(url):
            assert content.image(url) == {"type": "image_url", "image_url": {"url": url}}
            assert content.image(url, detail="low") == {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def test_an_image_is_known_by_its_bytes(tmp_path: Path) -> None:
    rows: list[tuple[bytes, str]] = [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "image/webp"),
    ]
    for data, media_type in rows:
        with row(data, media_type):
            expected = {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{encoded(data)}"}}
            path = tmp_path / "picture.wrong"
            path.write_bytes(data)
            assert content.image(data) == content.image(path) == content.image(str(path)) == expected


def test_an_image_is_known_by_its_name_or_by_what_it_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "picture.bmp"
    path.write_bytes(b"BM")
    assert content.image(path)["image_url"]["url"] == f"data:image/bmp;base64,{encoded(b'BM')}"
    assert content.image(b"BM", media_type="image/x")["image_url"]["url"] == f"data:image/x;base64,{encoded(b'BM')}"


def test_sound(tmp_path: Path) -> None:
    rows: list[tuple[str, bytes, str]] = [
        ("a.wav", WAV, "wav"),
        ("a.bin", WAV, "wav"),
        ("a.bin", b"ID3\x04", "mp3"),
        ("a.bin", b"\xff\xfb\x90", "mp3"),
        ("a.bin", b"fLaC", "flac"),
        ("a.MP3", b"\x00", "mp3"),
        ("a.wav", b"\x00", "wav"),
    ]
    for name, data, format_ in rows:
        with row(name, data, format_):
            path = tmp_path / name
            path.write_bytes(data)
            part = content.audio(path)
            assert part == {"type": "input_audio", "input_audio": {"data": encoded(data), "format": format_}}
            assert b64decode(part["input_audio"]["data"]) == data


def test_sound_from_bytes() -> None:
    assert content.audio(WAV)["input_audio"]["format"] == "wav"
    assert content.audio(b"\x00", format="pcm16")["input_audio"]["format"] == "pcm16"


def test_a_document(tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(PDF)
    expected = {"filename": "report.pdf", "file_data": f"data:application/pdf;base64,{encoded(PDF)}"}
    assert content.file(path) == content.file(PDF, filename="report.pdf") == {"type": "file", "file": expected}
    assert content.file(path, filename="other.pdf")["file"] == expected | {"filename": "other.pdf"}
    note = content.file(b"hello", filename="note.txt")["file"]
    assert note == {"filename": "note.txt", "file_data": f"data:text/plain;base64,{encoded(b'hello')}"}
    odd = content.file(b"x", filename="note", media_type="text/odd")["file"]
    assert odd == {"filename": "note", "file_data": f"data:text/odd;base64,{encoded(b'x')}"}


def test_an_uploaded_document() -> None:
    assert content.file(file_id="file-1") == {"type": "file", "file": {"file_id": "file-1"}}
    named = content.file(file_id="file-1", filename="a.pdf")
    assert named == {"type": "file", "file": {"file_id": "file-1", "filename": "a.pdf"}}


def test_what_cannot_be_sent(tmp_path: Path) -> None:
    rows: list[tuple[Callable[[Any], object], str]] = [
        (lambda _: content.image("missing.png"), "image: 'missing.png' cannot be read: No such file"),
        (lambda _: content.audio(Path("missing.wav")), "audio: 'missing.wav' cannot be read: No such file"),
        (lambda _: content.file("missing.pdf"), "file: 'missing.pdf' cannot be read: No such file"),
        (content.image, "image: '.*' cannot be read: Is a directory"),
        (lambda _: content.image("a\0b"), "image: .* cannot be read: embedded null"),
        (lambda _: content.image(cast("Any", 5)), "image: source must be a path or bytes, not int"),
        (lambda _: content.image(b"no image"), "image: the type of the bytes is unknown; give media_type"),
        (lambda _: content.image(WAV), "image: the type of the bytes is unknown"),
        (lambda _: content.image(__file__), r"image: the type of '.*\.py' is unknown"),
        (lambda _: content.audio(PNG), "audio: the type of the bytes is unknown; give format"),
        (lambda _: content.audio(__file__), r"audio: the type of '.*\.py' is unknown"),
        (lambda _: content.file(cast("Any", 5)), "file: source must be a path or bytes, not int"),
        (lambda _: content.file(), "file: give either source or file_id"),
        (lambda _: content.file(PDF, file_id="f"), "file: give either source or file_id"),
        (lambda _: content.file(PDF), "file: bytes need a filename"),
        (lambda _: content.file(b"x", filename="note"), "file: the type of 'note' is unknown; give media_type"),
    ]
    for make, says in rows:
        with row(make, says), pytest.raises(ValueError, match=says):
            make(tmp_path)


async def test_parts_on_the_wire(serve: Serve) -> None:
    server = serve()
    message: Any = {
        "role": "user",
        "content": [
            content.text("Compare."),
            content.image(PNG, detail="high"),
            content.audio(WAV),
            content.file(PDF, filename="a.pdf"),
        ],
    }
    async with ChatClient(api_key="k", transport=server) as client:
        await client.complete(model="m", messages=[message])
    assert server.bodies == [{"model": "m", "messages": [message]}]
