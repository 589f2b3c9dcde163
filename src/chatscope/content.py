"""Parts of a message made from files, bytes and URLs: `content.image("chart.png")`.

Files are read and encoded when the part is made, so an error comes before anything is sent. Whether a model accepts a
part is for the server to judge.
"""

from __future__ import annotations

import mimetypes
from base64 import b64encode
from os import PathLike, fspath
from pathlib import Path
from typing import Final, Literal, Never, TypeAlias

from chatscope.protocol.messages import AudioPart, FileData, FilePart, ImagePart, TextPart

Source: TypeAlias = str | PathLike[str] | bytes

_URL_STARTS: Final = ("http://", "https://", "data:")

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
"""The signatures of file types, their offsets, and the types. They take precedence over the file's name."""


def text(text: str) -> TextPart:
    """Return a text part."""
    return {"type": "text", "text": text}


def image(
    source: Source,
    *,
    detail: Literal["auto", "low", "high", "original"] | str | None = None,  # noqa: PYI051 - the literals are for editors
    media_type: str | None = None,
) -> ImagePart:
    """Return an image part.

    Args:
        source: an `http`, `https` or `data` URL, which is sent unchanged; the path of a file; or its bytes.
        detail: how closely the model examines the image.
        media_type: such as `image/png`. By default it is derived from the bytes, or else from the name.

    Raises:
        ValueError: the file cannot be read, or its type is unknown. The error names the file.
    """
    if isinstance(source, str) and source.startswith(_URL_STARTS):
        url = source
    else:
        data = _read(source, "image")
        found = media_type or _type_of_bytes(data, "image/") or _type_of_name(source, "image/")
        url = _data_url(data, found or _raise_unknown("image", source, "media_type"))
    return {"type": "image_url", "image_url": {"url": url} if detail is None else {"url": url, "detail": detail}}


def audio(source: Source, *, format: Literal["wav", "mp3"] | str | None = None) -> AudioPart:  # noqa: A002, PYI051 - the endpoint's name
    """Return an audio part.

    Args:
        source: the path of a file, or the bytes of one.
        format: such as `wav`. By default it is derived from the bytes, or else from the name.

    Raises:
        ValueError: the file cannot be read, or its format is unknown. The error names the file.
    """
    data = _read(source, "audio")
    found = format or _type_of_bytes(data, "audio/").removeprefix("audio/")
    if not found and not isinstance(source, bytes) and _type_of_name(source, "audio/"):
        found = Path(source).suffix[1:].lower()
    found = found or _raise_unknown("audio", source, "format")
    return {"type": "input_audio", "input_audio": {"data": b64encode(data).decode(), "format": found}}


def file(
    source: Source | None = None,
    *,
    file_id: str | None = None,
    filename: str | None = None,
    media_type: str | None = None,
) -> FilePart:
    """Return a file part: a document to send along, or one that was uploaded before.

    Args:
        source: the path of a file, or the bytes of one.
        file_id: the id of an uploaded file, instead of `source`.
        filename: the name that the model sees. By default it is the last part of the path; bytes need one.
        media_type: such as `application/pdf`. By default it is derived from the bytes, or else from the name.

    Raises:
        ValueError: neither or both of `source` and `file_id` are given, bytes have no name, or the file cannot be read
            or has an unknown type. The error names it.
    """
    if (source is None) == (file_id is None):
        raise ValueError("file: give either source or file_id")
    if file_id is not None:
        uploaded: FileData = {"file_id": file_id}
        if filename:
            uploaded["filename"] = filename
        return {"type": "file", "file": uploaded}
    assert source is not None  # noqa: S101 - given if there is no id
    data = _read(source, "file")
    if not isinstance(source, bytes):
        filename = filename or Path(source).name
    if not filename:
        raise ValueError("file: bytes need a filename")
    found = (
        media_type or _type_of_bytes(data) or _type_of_name(filename) or _raise_unknown("file", filename, "media_type")
    )
    return {"type": "file", "file": {"filename": filename, "file_data": _data_url(data, found)}}


def _read(source: Source, argument: str) -> bytes:
    if isinstance(source, bytes):
        return source
    if not isinstance(source, str | PathLike):
        raise ValueError(f"{argument}: source must be a path or bytes, not {type(source).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
    try:
        return Path(source).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{argument}: {fspath(source)!r} cannot be read: {reason}") from error


def _type_of_bytes(data: bytes, kind: str = "") -> str:
    """Return the type that the first bytes indicate, or `""` if it is not of this kind."""
    return next((name for start, at, name in _SIGNATURES if name.startswith(kind) and data.startswith(start, at)), "")


def _type_of_name(source: Source, kind: str = "") -> str:
    """Return the type that the name's ending indicates, or `""` if it is not of this kind."""
    found = None if isinstance(source, bytes) else mimetypes.guess_type(Path(source).name)[0]
    return found if found is not None and found.startswith(kind) else ""


def _raise_unknown(argument: str, source: Source, remedy: str) -> Never:
    which = "the bytes" if isinstance(source, bytes) else repr(fspath(source))
    rename = "" if isinstance(source, bytes) else " or a name with the ending of its type"
    raise ValueError(f"{argument}: the type of {which} is unknown; give {remedy}{rename}")


def _data_url(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{b64encode(data).decode()}"
