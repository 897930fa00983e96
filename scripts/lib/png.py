"""PNG: reads 8-bit RGB and RGBA, the two kinds that screenshots come in, and writes RGB."""

import struct
import zlib


class PngError(Exception):
    """Not a PNG file, or not one of the two kinds."""


def _unfilter(kind, line, above, pixel):
    """Undoes a scanline's filter in place (PNG specification, section 9)."""
    if kind == 0:
        return
    if kind == 2:
        for i, up in enumerate(above):
            line[i] = (line[i] + up) & 255
        return
    if kind not in (1, 3, 4):
        raise PngError(f"unknown filter {kind}")
    for i in range(len(line)):
        left = line[i - pixel] if i >= pixel else 0
        up = above[i]
        if kind == 1:
            predicted = left
        elif kind == 3:
            predicted = (left + up) // 2
        else:
            corner = above[i - pixel] if i >= pixel else 0
            estimate = left + up - corner
            distances = (abs(estimate - left), abs(estimate - up), abs(estimate - corner))
            predicted = (left, up, corner)[distances.index(min(distances))]
        line[i] = (line[i] + predicted) & 255


def parse_png(data):
    """Returns (width, height, RGB bytes without padding) of a file's content."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise PngError("not a PNG file")
    header, compressed, at = None, bytearray(), 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IHDR":
            header = struct.unpack_from(">IIBBBBB", data, at + 8)
        elif kind == b"IDAT":
            compressed += data[at + 8 : at + 8 + length]
        at += length + 12
    if header is None or header[2:] not in ((8, 2, 0, 0, 0), (8, 6, 0, 0, 0)):
        raise PngError(f"not 8-bit RGB or RGBA without interlace: {header}")
    width, height, pixel = header[0], header[1], 3 if header[3] == 2 else 4
    raw = zlib.decompress(bytes(compressed))
    if len(raw) != (width * pixel + 1) * height:
        raise PngError(f"{len(raw)} bytes of pixels for {width}x{height}")
    pixels, above = bytearray(), bytes(width * pixel)
    for y in range(height):
        start = y * (width * pixel + 1)
        line = bytearray(raw[start + 1 : start + 1 + width * pixel])
        _unfilter(raw[start], line, above, pixel)
        above = line
        pixels += line
    if pixel == 4:
        del pixels[3::4]
    return width, height, bytes(pixels)


def read_png(path):
    """The same of a file."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        return parse_png(data)
    except PngError as error:
        raise PngError(f"{path}: {error}") from None


def write_png(path, width, height, rgb):
    """Writes a file of RGB bytes without padding."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    line = width * 3
    rows = b"".join(b"\0" + rgb[y * line : (y + 1) * line] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header))
        file.write(chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def differing_pixels(one, other):
    """How many pixels of two pictures (as read_png returns them) differ; None if the sizes do."""
    if one[:2] != other[:2]:
        return None
    if one[2] == other[2]:
        return 0
    a, b = one[2], other[2]
    return sum(a[i : i + 3] != b[i : i + 3] for i in range(0, len(a), 3))
