"""The table of what each front end shows: tests write rows, `check` writes docs/front-ends.md."""

import json
import textwrap

SCENES = ("first picture", "drawn in place", "flip", "cursor", "mode set", "plane off", "plane on")

_BEGIN = "<!-- What follows is written by tests/qemu/check --matrix. -->\n"
_END = "<!-- Here it ends. -->\n"


def rows(directory):
    """Returns the rows that a test wrote, in its order."""
    path = directory / "matrix.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def table(found):
    """Returns the table in Markdown, with numbered notes below it."""
    notes = []
    lines = ["| front end | mode | QEMU shows a | " + " | ".join(SCENES) + " |", "|---" * (3 + len(SCENES)) + "|"]
    for row in found:
        cells = []
        for scene in SCENES:
            text, note = row["cells"][scene]
            if note:
                if note not in notes:
                    notes.append(note)
                text += f" [{notes.index(note) + 1}]"
            cells.append(text)
        lines.append(f"| {row['front end']} | {row['mode']} | {row['shows']} | " + " | ".join(cells) + " |")
    lines += ["", *(textwrap.fill(f"{number}. {note}", 100, subsequent_indent="   ") for number, note in enumerate(notes, 1))]
    return "\n".join(lines) + "\n"


def document(text, found):
    """Returns the document with a new table in place of the old one."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the document has no place for the table, between {_BEGIN!r} and {_END!r}")
    return f"{before}{begin}\n{table(found)}\n{end}{after}"
