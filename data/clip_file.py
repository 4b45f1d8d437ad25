"""Opening the file of a clip. What it is, is told by its content and never by its name, and no other file is opened for it.

FFmpeg would take the name of an image with a `%d` for a numbered series, and follow a playlist to other files and to the network. So it
gets bytes without a name, and only the formats that hold their picture and sound themselves.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from omnistage.data import container_size
from omnistage.data.container_size import MAX_LOST
from omnistage.data.errors import MediaError, MediaFault

_PICTURES = "apng asf av1 avi dv flv gif h264 hevc ivf m4v matroska mjpeg mov mpeg mpegts mpegvideo mxf nut obu ogg rm wtv yuv4mpegpipe"
_SOUNDS = (
    "aac ac3 aiff amr amrnb amrwb ape au caf dsf dts dtshd eac3 flac gsm ircam loas mp3 mpc mpc8 nistsphere oma shn sox tak truehd tta voc "
    "w64 wav wv"
)
_STILLS = (
    "bmp_pipe exr_pipe gif_pipe ico j2k_pipe jpeg_pipe jpegls_pipe jpegxl_pipe pam_pipe pbm_pipe pgm_pipe png_pipe ppm_pipe qoi_pipe "
    "tiff_pipe webp webp_pipe"
)
_OPTIONS = {"format_whitelist": ",".join(f"{_PICTURES} {_SOUNDS} {_STILLS}".split()), "protocol_whitelist": "none"}
# Formats whose streams state in front how long they are. Elsewhere FFmpeg estimates it from the size of the file.
_STATE_LENGTH = frozenset({"aiff", "ape", "au", "flac", "ivf", "mov,mp4,m4a,3gp,3g2,mj2", "mxf", "nistsphere", "tta", "wv"})
# Encoders pad and delay sound by some thousand samples; the last frame of a picture may come without its length.
_SLACK_S = {"audio": 0.25, "video": 0.05}


@contextmanager
def opened(path: str) -> Iterator[InputContainer]:
    """A clip that can be opened; what FFmpeg refuses while it is open is a `MediaError` too."""
    if not os.path.isfile(path):
        raise MediaError(f"{path!r} is a folder, not a clip") if os.path.isdir(path) else MediaError(f"{path!r} does not exist", "missing")
    try:
        if reason := container_size.cut_short(path):
            raise MediaError(f"{path!r} is cut short: {reason}", "truncated")
        with _opened(path) as container:
            yield container
    except MediaError:
        raise
    except (av.FFmpegError, OSError) as error:
        raise fault(path, f"cannot be read as a clip: {_why(path, error)}") from error


def fault(path: str, reason: str, code: MediaFault = "unreadable") -> MediaError:
    """The error of a clip that cannot be decoded: that it is cut short, if it is, else `reason`."""
    with suppress(OSError):
        if cut := container_size.cut_short(path, 0.0) or _ends_early(path):
            return MediaError(f"{path!r} is cut short: {cut}", "truncated")
    return MediaError(f"{path!r} {reason}", code)


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The moving picture; the cover of a song is none."""
    streams = (stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic)
    return next(streams, None)


class Frames:
    """The decoded frames of one stream, in order; `end` is where the latest packet so far ends, as `packet_end` tells it."""

    def __init__(self, container: InputContainer, stream: Stream) -> None:
        self.end = 0
        self._container = container
        self._stream = stream

    def __iter__(self) -> Iterator[Any]:
        for packet in self._container.demux(self._stream):
            self.end = max(self.end, packet_end(packet, self._stream))
            # Ogg files may open with thousands of empty packets, which decoders refuse; the empty one without a time ends the stream.
            if packet.size or packet.pts is None:
                yield from packet.decode()


def packet_end(packet: Any, stream: Stream) -> int:
    """Where a packet ends, in units of its stream's time from the first moment of it; 0 where it does not say."""
    if packet.pts is None or not packet.size:
        return 0
    return int(packet.pts + (packet.duration or 0) - (stream.start_time or 0))


def ends_early(container: InputContainer, stream: Stream, end: int, most: float = MAX_LOST) -> str | None:
    """How much earlier a stream ends than it states, if it lacks more than `most` of it; what an edit list cuts off is not stated."""
    if container.format.name not in _STATE_LENGTH or not stream.duration or not stream.time_base:
        return None
    stated, end_s = (float(time * stream.time_base) for time in (stream.duration, end))
    is_early = end_s < (1 - most) * stated - _SLACK_S[stream.type]
    return f"its {_NAMES[stream.type]} ends after {end_s:.1f} of {stated:.1f} s" if is_early else None


_NAMES = {"audio": "sound", "video": "picture"}


class _Nameless(io.FileIO):
    """A file without a name, and without an exception for a place that is not there, as FFmpeg expects of its own files."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.name = ""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:
            return -(error.errno or errno.EIO)


@contextmanager
def _opened(path: str) -> Iterator[InputContainer]:
    # Tags in odd encodings are no reason to fail.
    with _Nameless(path) as file, av.open(file, "r", options=_OPTIONS, metadata_errors="ignore") as container:
        yield container


def _ends_early(path: str) -> str | None:
    """How a stream ends early, told from its packets."""
    ends: dict[int, int] = {}
    with suppress(av.FFmpegError), _opened(path) as container:
        with suppress(av.FFmpegError):
            for packet in container.demux():
                ends[packet.stream_index] = max(ends.get(packet.stream_index, 0), packet_end(packet, packet.stream))
        for stream in (picture_stream(container), *container.streams.audio):
            if stream is not None and (reason := ends_early(container, stream, ends.get(stream.index, 0), 0.0)):
                return reason
    return None


def _why(path: str, error: av.FFmpegError | OSError) -> str:
    with suppress(OSError), open(path, "rb") as file:
        head = file.read(1024)
        if head and not head.translate(None, _TEXT):
            return "it is a text, such as a playlist; allowed: a file that holds its picture and its sound itself"
    # This is how FFmpeg refuses a format that is not listed.
    return "its format is none that is read, or its header is broken" if isinstance(error, av.ArgumentError) else str(error.strerror)


# What plain text is made of; the bytes of any other character of UTF-8 among them.
_TEXT = bytes({9, 10, 12, 13, 27, *range(32, 127), *range(128, 256)})
