"""Text from elsewhere (names of files, runs, settings, tensors, other programs' messages), made safe for each medium.

Any text that somebody else can choose goes through here, or through Jinja's escaping on HTML pages: control and
invisible characters are shown as escapes, and characters that a medium would read as its own syntax are quoted.
"""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

LONGEST_NAME = 200
"""The most characters of a name in a message; of a longer one, both ends are shown."""

# control, invisible and bidirectional characters, undecodable bytes, line breaks
_HIDDEN = {
    "Cc",
    "Cf",
    "Cs",
    "Zl",
    "Zp",
}
_STAY = "\n\u200c\u200d"  # line breaks, and the joiners that emoji and many scripts need


def visible(text: str) -> str:
    """A text for a terminal, a log or a page: invisible characters become escapes; line breaks stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    stays = character in _STAY or unicodedata.category(character) not in _HIDDEN
    return character if stays else _escape(character)


def one_line(text: str) -> str:
    """The same on one line, so that a line break in a name cannot forge a line of a log."""
    return visible(text).replace("\n", "\\n")


def as_text(name: str) -> str:
    """A file name as valid Unicode, for tables and JSON: undecodable bytes become escapes.

    >>> as_text("photo \\udcff.jpg")
    'photo \\\\xff.jpg'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def table_text(name: str) -> str:
    """A file name as in our tables: valid Unicode, on one line."""
    return one_line(as_text(name))


def first_of(words: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    """The first of some words, and the number of the others.

    >>> first_of(["cat", "dog"]), first_of(list("abcdefg"), 3)
    ('cat, dog', 'a, b, c and 4 more')
    """
    text = separator.join(words[:most])
    return f"{text} and {len(words) - most} more" if len(words) > most else text


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def shown(name: object, longest: int = LONGEST_NAME) -> str:
    """A name for a message: short, on one line."""
    text = os.fspath(name) if isinstance(name, os.PathLike) else str(name)
    if len(text) > longest:
        text = f"{text[: longest // 2]}...{text[-longest // 2 :]}"
    return one_line(text)


def command(*words: object) -> str:
    """A command line that a shell reads as exactly these words; on one line, whatever they contain."""
    return " ".join(map(_shell_word, words))


def _shell_word(value: object) -> str:
    word = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    if isinstance(value, os.PathLike) and word.startswith("-"):
        word = f"./{word}"  # else it would be an option
    if one_line(word) == word:
        return shlex.quote(word)
    escaped = "".join(_in_dollar_quotes(character) for character in word)
    return f"$'{escaped}'"  # bash, zsh and ksh; POSIX since 2024


def _in_dollar_quotes(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if visible(character) == character and character != "\n":
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def _escape(character: str) -> str:
    return (
        repr(character)[1:-1]
        if character < "\x80"
        else character.encode("ascii", "backslashreplace").decode()
    )


# not in few_shot, where no emphasis starts
_MARKDOWN = re.compile(r"[\\`*\[\]<|~$&]|(?<![^\W_])_|_(?![^\W_])")
_BLOCK = re.compile(r"(#|>|[-+](?=\s|$)|=+$|-+$|[0-9]+(?=[.)](\s|$)))")
_LINK = re.compile(r"\b(https?|ftp|mailto)(:)|\b(www)(\.)", re.IGNORECASE)


def markdown(text: str) -> str:
    """Plain text within a line of Markdown: it cannot end a cell or start a link, image, emphasis, formula or HTML."""
    text = " ".join(one_line(re.sub(r"\s", " ", text)).split())
    return _LINK.sub(_without_a_link, _MARKDOWN.sub(_in_markdown, text))


def markdown_line(text: str) -> str:
    """The same as a line of its own: it cannot be a heading, list or quotation either."""
    text = markdown(text)
    if not (block := _BLOCK.match(text)):
        return text
    if block[0].isdigit():
        return f"{block[0]}\\{text[block.end() :]}"
    return f"\\{text}"


def _in_markdown(found: re.Match[str]) -> str:
    return {"&": "&amp;", "<": "&lt;"}.get(found[0], f"\\{found[0]}")


def _without_a_link(found: re.Match[str]) -> str:
    """Renderers also make links of bare addresses, but not where the colon or dot is an entity."""
    return f"{found[1]}&#58;" if found[2] else f"{found[3]}&#46;"


def csv_cell(value: object) -> object:
    """A cell that no spreadsheet reads as a formula: a text that begins like one gets an apostrophe in front.

    Numbers are left alone, even where they are written as text.
    """
    if not isinstance(value, str):
        return value
    text = one_line(value)
    # also for text that is guarded already, so that removing the guard gives the same text for both
    bare = value.lstrip("'")
    formula = bare.lstrip().startswith(_FORMULA) or value[:1] in ("\t", "\r", "\n")
    return f"'{text}" if formula and bare != "-" and not _is_number(one_line(bare)) else text


def without_guard(cell: str) -> str:
    """The text that :func:`csv_cell` has written as ``cell``: without its apostrophe, where it has one."""
    return cell[1:] if cell[:1] == "'" and csv_cell(cell[1:]) == cell else cell


_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "＝",
    "＋",
    "－",
    "＠",
)  # some spreadsheets accept the full-width ones


def counted(number: object, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "epoch"), counted("2 or 3", "epoch"), counted(1200, "image")
    ('1 epoch', '2 or 3 epochs', '1,200 images')
    """
    shown_number = f"{number:,}" if isinstance(number, int) else str(number)
    return f"{shown_number} {noun}" if shown_number == "1" else f"{shown_number} {noun}s"


def csv_row(values: Iterable[object]) -> list[object]:
    return [csv_cell(value) for value in values]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_LATEX = {
    "\\": "\\textbackslash{}",
    "±": "$\\pm$",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
}
_LATEX |= {
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "`": "\\textasciigrave{}",
}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def latex(text: str) -> str:
    """Plain text in LaTeX, without commands, comments, formulas or ends of cells."""
    return "".join(
        _LATEX.get(character, character) for character in one_line(text.replace("\n", " "))
    )
