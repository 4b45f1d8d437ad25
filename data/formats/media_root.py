"""The folder under which the media of an annotation file lie: no path of a row leads out of it, not even a link."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from omnistage.data.errors import MediaError
from omnistage.data.formats.places import BadPath
from omnistage.data.formats.rows import Fields
from omnistage.data.media import frame_files, resolve

FOLDERS_KEPT = 4096


class MediaRoot:
    """Finds the files that rows name. Folders are looked at once: rows about the clips of one folder stand close together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._real = lru_cache(maxsize=FOLDERS_KEPT)(lambda named: resolve(named or ".", folder))
        self._check_frames = lru_cache(maxsize=FOLDERS_KEPT)(self._see_frames)

    def resolve(self, named: str) -> str:
        """The real path of what a row names, there or not; `BadPath` when it is no path or leaves the root."""
        try:
            os.fsencode(named)
            parent, name = os.path.split(named)
            if "\0" not in named and name not in ("", ".", "..") and named.strip():
                with suppress(MediaError):
                    path = os.path.join(self._real(parent), name)
                    if not os.path.islink(path):
                        return path
            return resolve(named, self.folder)
        except UnicodeEncodeError as error:
            raise BadPath(f"{named!r} is no path") from error
        except MediaError as error:
            raise BadPath(str(error)) from error

    def media(self, fields: Fields, field: str, *, folders: bool = False) -> str:
        """The real path of the clip that a field names; with `folders`, of a folder of frames too.

        Raises:
            RecordError: the field holds no path.
            MediaError: there is no such file under the root, or a folder holds no frames or one that leads out of the root.
        """
        named = fields.text(field, "the path of a clip under the media root")
        where = f"{fields.where}: {fields.prefix}{field}"
        try:
            path = self.resolve(named)
            if os.path.isfile(path):
                return path
            if folders and os.path.isdir(path):
                self._check_frames(path)
                return path
        except BadPath as error:
            raise BadPath(f"{where}: {error}") from error
        except MediaError as error:
            raise MediaError(f"{where}: {error}", error.code) from error
        problem = f"{named!r} is no {'file or folder' if folders else 'file'} under {str(self.folder)!r}"
        raise MediaError(f"{where}: {problem}; allowed: the path of a clip under the media root", "missing")

    def path_of(self, fields: Fields, field: str, named: Any, *, folders: bool = False) -> str:
        """As `media`, of a path that stands elsewhere than in a field of its own."""
        return self.media(Fields({field: named}, fields.where, fields.prefix), field, folders=folders)

    def first(self, names: Iterable[str], where: str) -> str | None:
        """The real path of the first of several names that is a file; `MediaError` for one that leaves the root."""
        for name in names:
            try:
                path = self.resolve(name)
            except BadPath as error:
                raise BadPath(f"{where}: {error}") from error
            if os.path.isfile(path):
                return path
        return None

    def _see_frames(self, folder: str) -> None:
        files = frame_files(folder)
        if not files:
            raise MediaError(f"{folder!r} is a folder without frames; allowed: a clip, or a folder of images", "no_frames")
        for link in filter(os.path.islink, files):
            self.resolve(link)
