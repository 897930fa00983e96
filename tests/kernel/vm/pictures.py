"""Pictures: what was written, what a screendump shows, and where they differ."""

import random
import struct
import zlib


class Picture:
    """RGB, 3 bytes for each pixel, rows without padding."""

    def __init__(self, width, height, rgb):
        if len(rgb) != width * height * 3:
            raise ValueError(f"{len(rgb)} bytes are not {width}x{height} pixels")
        self.width, self.height, self.rgb = width, height, bytes(rgb)

    @classmethod
    def from_ppm(cls, data):
        magic, size, depth, pixels = data.split(b"\n", 3)
        if magic != b"P6" or depth != b"255":
            raise ValueError(f"not an 8-bit PPM: {data[:20]!r}")
        width, height = map(int, size.split())
        # QEMU pads rows to 4 bytes, although PPM has no padding.
        line, pitch = width * 3, len(pixels) // height
        if len(pixels) != pitch * height or not line <= pitch < line + 4:
            raise ValueError(f"{len(pixels)} bytes in a PPM of {width}x{height}")
        if pitch != line:
            pixels = b"".join(pixels[y * pitch : y * pitch + line] for y in range(height))
        return cls(width, height, pixels)

    @classmethod
    def from_png(cls, data):
        """8-bit RGB or RGBA; slow, so for small pictures."""
        width, height, depth, kind, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
        if depth != 8 or kind not in (2, 6) or interlace:
            raise ValueError(f"a PNG with depth {depth}, colour type {kind}, interlace {interlace}")
        packed, at = b"", 8
        while at < len(data):
            size, name = struct.unpack(">I4s", data[at : at + 8])
            if name == b"IDAT":
                packed += data[at + 8 : at + 8 + size]
            at += size + 12
        step = 3 if kind == 2 else 4
        raw, line = zlib.decompress(packed), width * step
        above, rows = bytes(line), []
        for y in range(height):
            start = y * (line + 1)
            above = unfilter(raw[start], bytearray(raw[start + 1 : start + 1 + line]), above, step)
            rows.append(above)
        pixels = b"".join(rows)
        if step == 4:
            rgb = bytearray(width * height * 3)
            for channel in range(3):
                rgb[channel::3] = pixels[channel::4]
            pixels = rgb
        return cls(width, height, pixels)

    @classmethod
    def from_xrgb(cls, width, height, data, stride=None, offset=0):
        """Out of video memory in DRM_FORMAT_XRGB8888."""
        stride = stride or width * 4
        if stride != width * 4 or offset:
            rows = (offset + y * stride for y in range(height))
            data = b"".join(data[row : row + width * 4] for row in rows)
        data = data[: width * height * 4]
        rgb = bytearray(width * height * 3)
        for channel in range(3):
            rgb[channel::3] = data[2 - channel :: 4]
        return cls(width, height, rgb)

    def __eq__(self, other):
        return (self.width, self.height, self.rgb) == (other.width, other.height, other.rgb)

    def difference(self, other):
        """None when equal, else where and how they differ, for a person: it takes long."""
        if (self.width, self.height) != (other.width, other.height):
            return f"{other.width}x{other.height} instead of {self.width}x{self.height}"
        if self.rgb == other.rgb:
            return None
        wrong = [
            i for i in range(0, len(self.rgb), 3) if self.rgb[i : i + 3] != other.rgb[i : i + 3]
        ]
        at = wrong[0]
        y, x = divmod(at // 3, self.width)
        return (
            f"{len(wrong)} of {self.width * self.height} pixels differ, the first at {x},{y}: "
            f"{other.rgb[at:at + 3].hex()} instead of {self.rgb[at:at + 3].hex()}"
        )

    def difference_picture(self, other):
        """White where they differ; None when their sizes do."""
        if (self.width, self.height) != (other.width, other.height):
            return None
        mask = bytearray(len(self.rgb))
        for i in range(0, len(mask), 3):
            if self.rgb[i : i + 3] != other.rgb[i : i + 3]:
                mask[i : i + 3] = b"\xff\xff\xff"
        return Picture(self.width, self.height, mask)

    def is_plain(self):
        """Whether all is of one colour."""
        return self.rgb == self.rgb[:3] * (self.width * self.height)

    def save_png(self, path):
        def chunk(kind, data):
            body = kind + data
            return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

        line = self.width * 3
        rows = b"".join(
            b"\0" + self.rgb[y * line : (y + 1) * line] for y in range(self.height)
        )
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        with open(path, "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header))
            file.write(chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def unfilter(kind, row, above, step):
    """Undoes a filter of PNG in place, and returns the row."""
    if kind == 0:
        return row
    for i in range(len(row)):
        left = row[i - step] if i >= step else 0
        up = above[i]
        if kind == 1:
            predicted = left
        elif kind == 2:
            predicted = up
        elif kind == 3:
            predicted = (left + up) // 2
        else:
            corner = above[i - step] if i >= step else 0
            base = left + up - corner
            predicted = min((left, up, corner), key=lambda value: abs(base - value))
        row[i] = (row[i] + predicted) & 0xFF
    return row


def noise(seed, size):
    """Video memory in which no two pixels near each other are alike; X bytes are set, to be ignored."""
    # A block of a size that no row or page has, repeated: quick to make, and a shift by one row, one
    # page or one pixel is seen.
    block = random.Random(seed).randbytes(4 * 8191)
    return (block * (size // len(block) + 1))[:size]
