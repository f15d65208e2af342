"""Texts and JSON: UTF-8 from end to end, in a memory that does not grow with the file."""

import codecs
import re
from collections.abc import Iterator

from modelward.trust.model_format.magic import check_no_old_pickle
from modelward.trust.model_format.reader import BLOCK, Reader

MAX_DEPTH = 64
_TOKEN = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_OPENS = {"]": "[", "}": "{"}
_SPACE = " \t\r\n"
_BEGINNING = re.compile(r'[\[{"]|-?\d|true|false|null')


def check_text(reader: Reader) -> str:
    """Walk a text.

    Raises:
        FormatError: It is not UTF-8, has a NUL, or is a pickle.
    """
    characters = 0
    for text in _decoded(reader):
        characters += len(text)
    check_no_old_pickle(reader)
    return f"{characters} characters"


def check_json(reader: Reader) -> str:
    """Walk a JSON file: its strings and brackets close, in order, and are not nested too deeply.

    Raises:
        FormatError: They do not, or it is not UTF-8.
    """
    walk = _Walk(reader)
    for block in _decoded(reader):
        walk.feed(block)
    if not walk.begun or walk.stack or walk.in_string:
        raise reader.wrong("", "ends too early")
    return f"JSON of {reader.size} bytes"


class _Walk:
    """Where in a JSON text a reader is."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.begun = False
        self.over = False
        self.in_string = False
        self.stack: list[str] = []
        self._escape = ""  # a backslash at the end of a block: what it escapes is in the next

    def feed(self, block: str) -> None:
        """Go on by a block.

        Raises:
            FormatError: A bracket that closes nothing, nesting too deep, text after the end.
        """
        text = self._escape + block
        slashes = len(text) - len(text.rstrip("\\"))
        self._escape = "\\" if slashes % 2 else ""
        text = text[:-1] if self._escape else text
        if not self.begun:
            text = text.lstrip(_SPACE)
            self.begun = bool(text)
            if text and not _BEGINNING.match(text):
                raise self.reader.wrong("", "does not begin as JSON does")
        at = 0
        for match in _TOKEN.finditer(text):
            if self.over:
                break
            self._take(match.group())
            at = match.end()
        if self.over and text[at:].strip(_SPACE):
            raise self.reader.wrong("", "goes on after its end")

    def _take(self, sign: str) -> None:
        if sign == '"':
            self.in_string = not self.in_string
            self.over = not self.in_string and not self.stack
        elif self.in_string or len(sign) > 1:
            return
        elif sign in "[{":
            self.stack.append(sign)
            if len(self.stack) > MAX_DEPTH:
                raise self.reader.wrong("", f"is nested deeper than {MAX_DEPTH} levels")
        elif not self.stack or self.stack.pop() != _OPENS[sign]:
            raise self.reader.wrong("", f"has a {sign} that closes nothing")
        else:
            self.over = not self.stack


def _decoded(reader: Reader) -> Iterator[str]:
    """Yield the text, block by block."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    for offset in range(0, reader.size, BLOCK):
        length = min(BLOCK, reader.size - offset)
        try:
            text = decode(reader.read(offset, length, ""), final=offset + length == reader.size)
        except UnicodeDecodeError as error:
            raise reader.wrong("", "is not UTF-8 text") from error
        if "\0" in text:
            raise reader.wrong("", "has a NUL, which no text has")
        if text:
            yield text
