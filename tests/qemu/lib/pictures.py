"""Pictures, pixel for pixel."""

import time

from .case import Failure, output_file, say
from .qemu import QmpError

try:
    from PIL import Image, ImageChops
except ImportError as error:
    raise SystemExit(f"{error}: the tests need Debian's python3-pil, and /usr/bin/python3") from error


def load(path):
    """Loads a picture from a file, without alpha."""
    if path.endswith(".ppm"):
        return _load_ppm(path)
    with Image.open(path) as image:
        return image.convert("RGB")


def _load_ppm(path):
    """Loads QEMU's PPM, whose rows are padded to 4 bytes, although the format has no padding."""
    with open(path, "rb") as file:
        kind, size, depth, pixels = file.read().split(b"\n", 3)
    width, height = map(int, size.split())
    stride = (3 * width + 3) // 4 * 4
    if (kind, depth) != (b"P6", b"255") or len(pixels) != stride * height:
        raise Failure(f"{path}: {kind!r}, depth {depth!r}, {len(pixels)} bytes are no PPM of {width}x{height}")
    return Image.frombytes("RGB", (width, height), pixels, "raw", "RGB", stride)


def count(picture, colour):
    """Returns how many pixels have this colour."""
    return sum(pixel == colour for pixel in picture.getdata())


def raw_mode(fourcc):
    """Returns Pillow's name for a dma-buf's format. An exported texture's may not be the guest's."""
    name = fourcc.to_bytes(4, "little").decode("ascii", "replace")
    try:
        return {"XR24": "BGRX", "AR24": "BGRX", "XB24": "RGBX", "AB24": "RGBX"}[name]
    except KeyError:
        raise Failure(f"a dma-buf in the unknown format {name}") from None


def difference(expected, actual, tolerance=0):
    """Describes how two pictures differ by more than the tolerance (of 255); None if they do not."""
    if expected.size != actual.size:
        return "the size is {}x{} instead of {}x{}".format(*actual.size, *expected.size)
    if expected.tobytes() == actual.tobytes():
        return None
    differing = ImageChops.difference(expected, actual).point(lambda value: value if value > tolerance else 0)
    box = differing.getbbox()
    if box is None:
        return None
    mask = differing.convert("L").point(lambda value: 255 if value else 0)
    count = mask.histogram()[255]
    left, top, right, bottom = box
    x = next(x for x in range(left, right) if differing.getpixel((x, top)) != (0, 0, 0))
    wanted, got = (image.getpixel((x, top)) for image in (expected, actual))
    return (f"{count or 'some'} pixels within {left},{top} to {right - 1},{bottom - 1} differ, the first at {x},{top}: "
            "#{:02x}{:02x}{:02x} instead of #{:02x}{:02x}{:02x}".format(*got, *wanted))


def has_part(picture, part):
    """Returns whether a picture is part of another, e.g. of a screen's with windows."""
    first_row = part.crop((0, 0, part.width, 1)).tobytes()
    for top in range(picture.height - part.height + 1):
        place = picture.crop((0, top, picture.width, top + 1)).tobytes().find(first_row)
        if place >= 0 and place % 3 == 0:
            left = place // 3
            if difference(part, picture.crop((left, top, left + part.width, top + part.height))) is None:
                return True
    return False


def _leave(expected, actual):
    """Saves pictures that should be equal, and a third one in which differing pixels are red."""
    expected.save(output_file("expected.png"))
    actual.save(output_file("actual.png"))
    if expected.size == actual.size:
        mask = ImageChops.difference(expected, actual).convert("L").point(lambda value: 255 if value else 0)
        faint = expected.point(lambda value: value // 3 + 85)
        faint.paste((255, 0, 0), mask=mask)
        faint.save(output_file("difference.png"))


def compare(what, expected, actual, tolerance=0):
    """Prints that two pictures are equal, or fails and saves them."""
    wrong = difference(expected, actual, tolerance)
    if wrong:
        _leave(expected, actual)
        raise Failure(f"{what}: {wrong} (see expected.png, actual.png, difference.png)")
    how = f"within {tolerance} of 255" if tolerance else "pixel for pixel"
    say("{}: {}x{}, {}".format(what, *expected.size, how))


def _poll(what, expected, actual, seconds, tolerance=0):
    """Waits until the picture is as expected, which may take some refreshes, e.g. after an error."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            picture = actual()
        except QmpError as error:
            raise Failure(f"{what}: screendump: {error}") from error
        if picture is not None and difference(expected, picture, tolerance) is None:
            break
        if time.monotonic() > deadline:
            if picture is None:
                raise Failure(f"{what}: there is no picture at all")
            break
        time.sleep(0.02)
    compare(what, expected, picture, tolerance)


def _truth(vgpu, cursor):
    path = output_file(f"{vgpu.name}.png")
    vgpu.screenshot(path, cursor)
    return load(path)


def same_as_console(what, vgpu, qemu, device=None, seconds=10, expected=None, form="ppm"):
    """Checks that the console shows what the vGPU shows. A screendump has no cursor."""
    expected = expected or _truth(vgpu, cursor=False)
    _poll(what, expected, lambda: load(qemu.screendump(device, form)), seconds)


def same_as_screen(what, vgpu, client, cursor=False, seconds=15, tolerance=0):
    """Checks that a client of a display (Vnc, DBusScreen) shows what the vGPU shows."""
    _poll(what, _truth(vgpu, cursor), client.picture, seconds, tolerance)


def same_as_picture(what, expected, client, seconds=15):
    """Checks that a client of a display shows a picture."""
    _poll(what, expected, client.picture, seconds)


def pointer(size, pixels, order, **more):
    """Returns a client's pointer as a picture, with its other properties; None if it is invisible."""
    image = Image.frombytes("RGBA", size, pixels, "raw", order)
    return {"image": image, **more} if image.getchannel("A").getbbox() else None


def settled(vgpu):
    """Returns the vGPU's picture, once it does not change any more."""
    path = output_file(f"{vgpu.name}.png")
    before = None
    while True:
        vgpu.screenshot(path)
        picture = load(path)
        if before is not None and difference(before, picture) is None:
            return picture
        before = picture
        time.sleep(0.2)
