"""Pictures: written ones, screendumps, and where they differ."""

import os
import random
import sys

sys.path.append(os.path.join(os.path.dirname(__file__), "../../../scripts/lib"))

from png import parse_png, write_png  # noqa: E402  The path must be set first.


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
        """Writes 8-bit RGB or RGBA. Slow: for small pictures only."""
        return cls(*parse_png(data))

    @classmethod
    def from_xrgb(cls, width, height, data, stride=None, offset=0):
        """Reads a picture from video memory in DRM_FORMAT_XRGB8888."""
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
        """Describes where and how pictures differ; None if they are equal. Slow."""
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
        """Returns a picture that is white where they differ; None if their sizes do."""
        if (self.width, self.height) != (other.width, other.height):
            return None
        mask = bytearray(len(self.rgb))
        for i in range(0, len(mask), 3):
            if self.rgb[i : i + 3] != other.rgb[i : i + 3]:
                mask[i : i + 3] = b"\xff\xff\xff"
        return Picture(self.width, self.height, mask)

    def is_plain(self):
        """Returns whether there is only one colour."""
        return self.rgb == self.rgb[:3] * (self.width * self.height)

    def save_png(self, path):
        write_png(path, self.width, self.height, self.rgb)


def noise(seed, size):
    """Returns video memory in which nearby pixels differ. The X bytes are set, and must be ignored."""
    # A repeated block whose size is that of no row or page: quick to make, and a shift by a row, a
    # page or a pixel shows.
    block = random.Random(seed).randbytes(4 * 8191)
    return (block * (size // len(block) + 1))[:size]
