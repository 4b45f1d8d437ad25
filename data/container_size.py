"""How large a file of a clip says that it is: a cut AVI, WAV, Matroska or WebM file decodes without complaint, as a shorter clip.

MP4 and MOV need no such look, since their list of frames points behind a cut; FLAC ends with an error. Ogg and MP3 say nowhere how long
they are, so that their cuts cannot be seen.
"""

from __future__ import annotations

import os

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_HEAD = 4096
_UNKNOWN_RIFF = (0, 0xFFFFFFFF)


def stated_bytes(path: str) -> int | None:
    """Bytes that the file should have by its own first lines; `None` where these do not tell. Raises `OSError`."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if head[:4] == b"RIFF" and len(head) >= 8:
        size = int.from_bytes(head[4:8], "little")
        return None if size in _UNKNOWN_RIFF else size + 8
    if head[:4] == _EBML:
        return _matroska(head)
    return None


def lost_share(path: str) -> float:
    """Share of the stated bytes that are not there, 0 to 1; 0 where nothing is stated. Raises `OSError`."""
    stated = stated_bytes(path)
    return max(0.0, 1 - os.path.getsize(path) / stated) if stated else 0.0


def _matroska(head: bytes) -> int | None:
    """The header element and the one segment behind it (RFC 9559)."""
    header = _number(head, 4)
    if header is None or header[0] is None:
        return None
    start = header[1] + header[0]
    if head[start : start + 4] != _SEGMENT:
        return None
    segment = _number(head, start + 4)
    return None if segment is None or segment[0] is None else segment[1] + segment[0]


def _number(head: bytes, at: int) -> tuple[int | None, int] | None:
    """A number of variable length (RFC 8794) and the place behind it; the number is `None` when it stands for "unknown"."""
    if at >= len(head) or head[at] == 0:
        return None
    length = 9 - head[at].bit_length()
    if at + length > len(head):
        return None
    bits = int.from_bytes(head[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (None if bits == (1 << 7 * length) - 1 else bits), at + length
