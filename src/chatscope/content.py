"""Parts of a message made from files, bytes and addresses: `content.image("chart.png")`.

Everything is read and encoded when the part is made, so that what cannot be sent is refused before anything is. What a
model accepts is the server's to judge.
"""

from __future__ import annotations

import mimetypes
from base64 import b64encode
from os import PathLike, fspath
from pathlib import Path
from typing import Final, Literal, Never, TypeAlias

from chatscope.protocol.messages import AudioPart, FileData, FilePart, ImagePart, TextPart

Source: TypeAlias = str | PathLike[str] | bytes

_ADDRESSES: Final = ("http://", "https://", "data:")

_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF8", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"WAVE", 8, "audio/wav"),
    (b"ID3", 0, "audio/mp3"),
    (b"\xff\xfb", 0, "audio/mp3"),
    (b"\xff\xf3", 0, "audio/mp3"),
    (b"fLaC", 0, "audio/flac"),
    (b"OggS", 0, "audio/ogg"),
    (b"%PDF-", 0, "application/pdf"),
)
"""What files begin with, where, and what they are then: a file is what it holds, whatever its name says."""


def text(text: str) -> TextPart:
    """Return a part that is text."""
    return {"type": "text", "text": text}


def image(
    source: Source,
    *,
    detail: Literal["auto", "low", "high", "original"] | str | None = None,  # noqa: PYI051 - the literals are for editors
    media_type: str | None = None,
) -> ImagePart:
    """Return a part that is an image.

    Args:
        source: an `http`, `https` or `data` URL, which is sent as it is; the path of a file; or the bytes of one.
        detail: how closely the model looks.
        media_type: such as `image/png`; by default what the bytes, or else the name, say.

    Raises:
        ValueError: the file cannot be read, or its type is not known; the error names it.
    """
    if isinstance(source, str) and source.startswith(_ADDRESSES):
        url = source
    else:
        data = _read(source, "image")
        known = media_type or _held(data, "image/") or _named(source, "image/")
        url = _data_url(data, known or _unknown("image", source, "media_type"))
    return {"type": "image_url", "image_url": {"url": url} if detail is None else {"url": url, "detail": detail}}


def audio(source: Source, *, format: Literal["wav", "mp3"] | str | None = None) -> AudioPart:  # noqa: A002, PYI051 - the endpoint's name
    """Return a part that is sound.

    Args:
        source: the path of a file, or the bytes of one.
        format: by default what the bytes, or else the name, say.

    Raises:
        ValueError: the file cannot be read, or its format is not known; the error names it.
    """
    data = _read(source, "audio")
    known = format or _held(data, "audio/").removeprefix("audio/")
    if not known and not isinstance(source, bytes) and _named(source, "audio/"):
        known = Path(source).suffix[1:].lower()
    known = known or _unknown("audio", source, "format")
    return {"type": "input_audio", "input_audio": {"data": b64encode(data).decode(), "format": known}}


def file(
    source: Source | None = None,
    *,
    file_id: str | None = None,
    filename: str | None = None,
    media_type: str | None = None,
) -> FilePart:
    """Return a part that is a document: one to be sent along, or one that was uploaded.

    Args:
        source: the path of a file, or the bytes of one.
        file_id: the id of an uploaded file, instead of `source`.
        filename: what the model is told; by default the path's last part. Bytes need one.
        media_type: such as `application/pdf`; by default what the bytes, or else the name, say.

    Raises:
        ValueError: neither or both of `source` and `file_id`, bytes without a name, a file that cannot be read or whose
            type is not known; the error names it.
    """
    if (source is None) == (file_id is None):
        raise ValueError("file: give either source or file_id")
    if file_id is not None:
        uploaded: FileData = {"file_id": file_id}
        if filename:
            uploaded["filename"] = filename
        return {"type": "file", "file": uploaded}
    assert source is not None  # noqa: S101 - there is one if there is no id
    data = _read(source, "file")
    if not isinstance(source, bytes):
        filename = filename or Path(source).name
    if not filename:
        raise ValueError("file: bytes need a filename")
    known = media_type or _held(data) or _named(filename) or _unknown("file", filename, "media_type")
    return {"type": "file", "file": {"filename": filename, "file_data": _data_url(data, known)}}


def _read(source: Source, argument: str) -> bytes:
    if isinstance(source, bytes):
        return source
    if not isinstance(source, str | PathLike):
        raise ValueError(f"{argument}: source must be a path or bytes, not {type(source).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
    try:
        return Path(source).read_bytes()
    except (OSError, ValueError) as error:  # a ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{argument}: {fspath(source)!r} cannot be read: {reason}") from error


def _held(data: bytes, kind: str = "") -> str:
    """Return what the bytes begin like, `""` if that is nothing of this kind."""
    return next((name for start, at, name in _SIGNATURES if name.startswith(kind) and data.startswith(start, at)), "")


def _named(source: Source, kind: str = "") -> str:
    """Return what the name ends like, `""` if that is nothing of this kind."""
    named = None if isinstance(source, bytes) else mimetypes.guess_type(Path(source).name)[0]
    return named if named is not None and named.startswith(kind) else ""


def _unknown(argument: str, source: Source, remedy: str) -> Never:
    which = "the bytes" if isinstance(source, bytes) else repr(fspath(source))
    raise ValueError(f"{argument}: the type of {which} is not known; give {remedy}")


def _data_url(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{b64encode(data).decode()}"
