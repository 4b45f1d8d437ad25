"""How large a file of a clip says that it is: most cut files decode without complaint, as a shorter clip.

Told from the first bytes and from the sizes of the file's pieces, never by decoding. Of MPEG-TS, MPEG-PS, bare streams (AAC, AC-3, H.264,
MP3 without a Xing header) and live Matroska nothing tells whether they are whole. An MP4 with its index in front is not judged here: the
index tells how many frames and how much sound there should be.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

# A clip that lost more of its bytes, frames or seconds than this is broken; a few lost ones are common at the end of cut clips.
MAX_LOST = 0.1
_HEAD = 4096
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF, _ASF_FILE = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")
# Boxes at the top of MP4 and MOV files. What else stands there is no box but what a phone or a player put behind the last one.
_BOXES = frozenset(b"ftyp styp moov moof mdat mfra sidx ssix free skip wide uuid meta udta pnot PICT prft emsg pdin".split())
_MOST_BOXES = 1 << 17
# The longest index box, and the longest page of Ogg.
_INDEX = 32 + 12 * 0xFFFF
_PAGE = 27 + 255 + 255 * 255


def cut_short(path: str, most: float = MAX_LOST) -> str | None:
    """Why a file that lost more than `most` of its bytes is not whole; `None` where it is, or nothing tells. Raises `OSError`."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        stated, piece = _told(file, size)
    if piece is not None:
        return f"it ends inside {piece}"
    lost = 1 - size / stated if stated else 0.0
    return f"{100 * lost:.2g}% of its bytes are not there" if lost > most else None


def stated_bytes(path: str) -> int | None:
    """Bytes that the file should have by its own words; `None` where these do not tell. Raises `OSError`."""
    with open(path, "rb") as file:
        return _told(file, os.path.getsize(path))[0]


def _told(file: BinaryIO, size: int) -> tuple[int | None, str | None]:
    """Bytes that the file should have, and the piece that it breaks off in where counting bytes does not say what is lost."""
    head = _read(file, 0, _HEAD)
    if head[4:8] in _BOXES:
        boxes = _Boxes(file, size)
        return boxes.stated(), boxes.broken()
    if head[:4] == b"OggS":
        return None, _broken_page(_read(file, max(0, size - _PAGE), _PAGE))
    if head[:4] in (b"RIFF", b"RF64"):
        return _riff(file, head), None
    if head[:4] == _EBML:
        return _matroska(head), None
    if head[:3] == b"FLV":
        return _flv(head), None
    if head[:16] == _ASF:
        return _asf(head), None
    if head[:16] == _W64 and len(head) >= 24:
        return int.from_bytes(head[16:24], "little"), None
    if head[:4] == b"caff":
        return _caf(file, size), None
    return _mp3(file, head), None


def _broken_page(tail: bytes) -> str | None:
    """Whether the last page of an Ogg file (RFC 3533) is longer than what is there of it."""
    last = tail[tail.rfind(b"OggS") :] if b"OggS" in tail else tail[:0]
    lengths = last[27 : 27 + last[26]] if len(last) > 26 else b""
    is_whole = len(last) > 26 and len(last) >= 27 + last[26] + sum(lengths)
    return None if is_whole or not last else "a page, and nothing says how many should follow"


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _riff(file: BinaryIO, head: bytes) -> int | None:
    """WAV, AVI and WebP. An AVI of over a gigabyte goes on in chunks of its own behind the first one."""
    if len(head) < 8:
        return None
    size = int.from_bytes(head[4:8], "little")
    if head[:4] == b"RF64" or size == 0xFFFFFFFF:
        return int.from_bytes(head[20:28], "little") + 8 if head[12:16] == b"ds64" else None
    # What writes to a pipe cannot come back and put the true size there: SoX, arecord and others leave about 2 or 4 GB, or nothing.
    if size == 0 or abs(size - 0x7FFFFFFF) <= 0x2000 or size >= 0xFFFFE000:
        return None
    end = size + 8
    while head[8:12] == b"AVI " and (more := _read(file, end + end % 2, 12))[:4] == b"RIFF" and more[8:] == b"AVIX":
        end += end % 2 + int.from_bytes(more[4:8], "little") + 8
    return end


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


class _Boxes:
    """The boxes at the top of an MP4 or MOV file (ISO 14496-12)."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._size = size
        self._kinds: list[bytes] = []
        # Ends of the last box, and of what index boxes ("sidx") say that follows them.
        self._end = self._indexed = at = 0
        while at + 8 <= size and len(self._kinds) < _MOST_BOXES:
            head = _read(file, at, 64)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if kind not in _BOXES:
                break
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            # A length of 0 is "up to the end of the file".
            if length < 8:
                break
            self._kinds.append(kind)
            at = self._end = at + length
            if kind == b"sidx" and at <= size:
                self._indexed = max(self._indexed, at + _indexed_bytes(_read(file, at - length + 8, min(length, _INDEX))))

    def stated(self) -> int | None:
        """Where the last box ends, or what follows an index box; `None` where the index of all frames stands in front."""
        in_front = b"moov" in self._kinds and b"moof" not in self._kinds and not self._indexed
        return None if in_front else max(self._end, self._indexed) or None

    def broken(self) -> str | None:
        if self._end <= self._size:
            return None
        if self._kinds[-1] == b"moov":
            return "its index"
        if b"moof" not in self._kinds:
            return None
        # Index boxes in front of all fragments list all of them.
        last_index = len(self._kinds) - self._kinds[::-1].index(b"sidx") if self._indexed else 0
        listed = 0 < last_index <= self._kinds.index(b"moof")
        return None if listed else "a fragment, and nothing says how many should follow"


def _indexed_bytes(body: bytes) -> int:
    """Bytes behind an index box that it lists, from its body."""
    at = 20 if body[:1] == b"\0" else 28
    if len(body) < at + 4:
        return 0
    first = int.from_bytes(body[at - 4 : at] if at == 20 else body[at - 8 : at], "big")
    count = int.from_bytes(body[at + 2 : at + 4], "big")
    sizes = (int.from_bytes(body[place : place + 4], "big") & 0x7FFFFFFF for place in range(at + 4, at + 4 + 12 * count, 12))
    return first + sum(sizes)


def _flv(head: bytes) -> int | None:
    """The number that the script tag names "filesize"."""
    at = head.find(b"\0\x08filesize\0")
    if at < 0 or len(head) < at + 19:
        return None
    (size,) = struct.unpack(">d", head[at + 11 : at + 19])
    return int(size) if 0 < size < 2**53 else None


def _asf(head: bytes) -> int | None:
    """The size in the file properties, unless it was broadcast."""
    at = head.find(_ASF_FILE)
    if at < 0 or len(head) < at + 92 or head[at + 88] & 1:
        return None
    return int.from_bytes(head[at + 40 : at + 48], "little") or None


def _caf(file: BinaryIO, size: int) -> int | None:
    """The end of the last chunk; the sound may be last and without a size."""
    at = 8
    while at + 12 <= size:
        length = int.from_bytes(_read(file, at + 4, 8), "big", signed=True)
        if length < 0:
            return None
        at += 12 + length
    return at


def _mp3(file: BinaryIO, head: bytes) -> int | None:
    """Bytes by the Xing (or Info) header, which encoders put into the first frame, behind an ID3 tag."""
    start = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    frame = _read(file, start, 64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return None
    for side in (9, 17, 32):
        tag = frame[4 + side :]
        if tag[:4] in (b"Xing", b"Info") and tag[7] & 2:
            place = 12 if tag[7] & 1 else 8
            return start + int.from_bytes(tag[place : place + 4], "big") or None
    return None
