"""Decoding of images: bytes to arrays (height, width, channels) of uint8."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gristmill.errors import InputError, MissingDependencyError, UsageError, did_you_mean

Image = npt.NDArray[np.uint8]
Decoder = Callable[[bytes, np.random.Generator], Any]
Content = bytes | memoryview

COLOURS = {"rgb": 3, "gray": 1}
JPEG = b"\xff\xd8\xff"


@runtime_checkable
class InPlace(Protocol):
    """A decoder that can write into the tensor of a batch, and takes any buffer for bytes."""

    def shape(self, content: Content) -> tuple[int, ...] | None:
        """(height, width, channels) of the result; None if only decoding can tell."""

    def into(self, out: Image, content: Content, rng: np.random.Generator) -> None:
        """Writes the result."""


def decode_image(content: Content, colour: str = "rgb") -> Image:
    """(height, width, 3 or 1) of a JPEG, PNG, WebP or other image that OpenCV reads. Orientation tags are not applied.

    Raises:
        InputError: not a readable image, or cut off.
    """
    if content[:3] == JPEG:
        return _jpeg(content, colour, 1)
    cv2 = _cv2()
    flags = (cv2.IMREAD_COLOR if colour == "rgb" else cv2.IMREAD_GRAYSCALE) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        found = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error:  # absurd sizes in the header
        found = None
    if found is None:
        raise InputError(f"not a readable image ({len(content)} bytes, beginning with {bytes(content[:8])!r})")
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB) if colour == "rgb" else found[:, :, None]


@dataclass(frozen=True)
class RandomResizedCrop:
    """A decoder: a random part of the image, scaled to (size, size, 3), perhaps mirrored; sampled as torchvision's transform of that name does.

    scale: of the image's area; ratio: width to height, log-uniform. JPEGs are decoded at the smallest of the scales 1, 1/2, 1/4, 1/8 at which the part is still at
    least as large as the result; what is still twice as large is averaged, all else interpolated.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __call__(self, content: Content, rng: np.random.Generator) -> Image:
        """The part of one image."""
        out = np.empty((self.size, self.size, 3), np.uint8)
        self.into(out, content, rng)
        return out

    def shape(self, _content: Content) -> tuple[int, ...]:
        """That of every result."""
        return self.size, self.size, 3

    def into(self, out: Image, content: Content, rng: np.random.Generator) -> None:
        """Writes the part of one image."""
        jpeg = content[:3] == JPEG
        image = None if jpeg else decode_image(content)
        height, width = _jpeg_size(content) if image is None else image.shape[:2]
        top, left, h, w = self._part(height, width, rng)
        shrink = 1
        if image is None:
            while shrink < 8 and min(h, w) >= 2 * shrink * self.size:
                shrink *= 2
            image = _jpeg(content, "rgb", shrink)
        y, x = int(top / shrink), int(left / shrink)
        part = image[y : max(y + 1, round((top + h) / shrink)), x : max(x + 1, round((left + w) / shrink))]
        cv2 = _cv2()
        method = (
            cv2.INTER_AREA if max(part.shape[:2]) >= 2 * self.size else cv2.INTER_LINEAR
        )  # AREA takes 6 times as long
        if rng.random() < self.flip:
            cv2.flip(cv2.resize(part, (self.size, self.size), interpolation=method), 1, dst=out)
        else:
            cv2.resize(part, (self.size, self.size), dst=out, interpolation=method)

    def _part(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width)."""
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side


def find_decoder(column: str, kind: Any) -> Decoder:
    """The decoder that `decode={column: kind}` means: "rgb", "gray", or a function (bytes, rng) -> array."""
    if callable(kind):
        return kind
    if kind not in COLOURS:
        raise UsageError(
            f"decode={{'{column}': {kind!r}}}: 'rgb', 'gray' or a function (bytes, rng) -> array.{did_you_mean(str(kind), COLOURS)}"
        )
    return Plain(kind)


@dataclass(frozen=True)
class Plain:
    """A decoder: the whole image. It needs no random generator."""

    colour: str

    def __call__(self, content: Content, _rng: Any = None) -> Image:
        """One image."""
        return decode_image(content, self.colour)

    def shape(self, content: Content) -> tuple[int, ...] | None:
        """A JPEG's, from its header."""
        return (*_jpeg_size(content), COLOURS[self.colour]) if content[:3] == JPEG else None

    def into(self, out: Image, content: Content, _rng: Any = None) -> None:
        """Writes a JPEG's pixels."""
        _jpeg(content, self.colour, 1, out)


def _jpeg(content: Content, colour: str, shrink: int, out: Image | None = None) -> Image:
    """A JPEG at 1 / shrink of its size, in `out` if that is given."""
    import importlib.util

    if importlib.util.find_spec("simplejpeg") is None:
        found = _jpeg_by_cv2(content, colour, shrink)
        if out is not None:
            out[:] = found
        return found
    import simplejpeg

    height, width = _jpeg_size(content) if shrink > 1 else (0, 0)
    try:
        found = simplejpeg.decode_jpeg(
            content,
            colour.upper(),
            fastdct=False,
            min_height=-(-height // shrink),
            min_width=-(-width // shrink),
            buffer=out,
        )
    except ValueError as error:
        raise InputError(f"not a readable JPEG ({len(content)} bytes): {error}") from error
    return found


def _jpeg_by_cv2(content: Content, colour: str, shrink: int) -> Image:
    cv2 = _cv2()
    names = {1: "IMREAD_{}", 2: "IMREAD_REDUCED_{}_2", 4: "IMREAD_REDUCED_{}_4", 8: "IMREAD_REDUCED_{}_8"}
    flag = getattr(cv2, names[shrink].format("COLOR" if colour == "rgb" else "GRAYSCALE"))
    found = cv2.imdecode(np.frombuffer(content, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if found is None:
        raise InputError(f"not a readable JPEG ({len(content)} bytes)")
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB) if colour == "rgb" else found[:, :, None]


def _jpeg_size(content: Content) -> tuple[int, int]:
    """(height, width) from a JPEG's frame header."""
    at = 2
    while at + 9 <= len(content):
        if content[at] != 0xFF:
            break
        marker = content[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(content[at + 5 : at + 7], "big"), int.from_bytes(content[at + 7 : at + 9], "big")
        at += (
            1
            if marker == 0xFF
            else 2
            if marker == 0x01 or 0xD0 <= marker <= 0xD9
            else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        )
    raise InputError(f"not a readable JPEG ({len(content)} bytes): it has no frame header")


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "images need a package that isn't installed: pip install 'gristmill[images]'"
        ) from error
    return cv2
