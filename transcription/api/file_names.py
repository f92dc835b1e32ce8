"""File names as clients send them, in any bytes and escapes, to names that are safe to keep and to show."""

import re
import unicodedata
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from html import unescape
from pathlib import PurePosixPath
from urllib.parse import unquote_to_bytes

LONGEST_NAME = 255  # bytes, what a file system and our column take
LONGEST_EXTENSION = 16
JOINERS = ("\N{ZERO WIDTH NON-JOINER}", "\N{ZERO WIDTH JOINER}")

# The encodings of Russian file names: of Windows' programs, of its command line, of old Unix. Texts in one of them read
# in another have capitals inside words, or signs between letters.
CYRILLIC = ("cp1251", "cp866", "koi8-r")
WESTERN = "cp1252"  # a superset of Latin-1's printable characters
USUAL_SIGNS = set("«»„“”–—№…·°§© ×'’")
USUAL_LETTERS = set("абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґў")
ENCODED_BYTE = re.compile(r"%[89A-Fa-f][0-9A-Fa-f]")
ENCODED_WORD = re.compile(r"=\?[\w.:-]+\?[bq]\?[^?\s]*\?=", re.IGNORECASE)


def clean_name(name: str) -> str:
    """A name that is safe to store, to show and to put into a header: never empty, at most 255 bytes of UTF-8.

    Control and bidi characters are removed (an override would show `3pm.exe` as `exe.mp3`), and so is a path.
    """
    composed = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    visible = "".join(character for character in composed if _is_visible(character)).strip()
    if visible.strip(".") == "":
        return "recording"
    extension = PurePosixPath(visible).suffix
    if len(extension.encode()) > LONGEST_EXTENSION:
        extension = ""
    stem = visible[: len(visible) - len(extension)]
    longest = LONGEST_NAME - len(extension.encode())
    return stem.encode()[:longest].decode(errors="ignore") + extension  # no character is cut in half


def _is_visible(character: str) -> bool:
    # Cc control, Cf format (bidi, zero width), Cs lone surrogates, Zl and Zp line ends; Persian needs the joiners.
    return character in JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def repaired_name(sent: bytes) -> str:
    """The clean name that a client most likely means by the bytes of `filename=`."""
    # Browsers and curl escape these three characters in a form, and no `%`.
    name = unescape(decoded(sent)).replace("%22", '"').replace("%0A", "\n").replace("%0D", "\r")
    if ENCODED_WORD.search(name):
        name = _without_encoded_words(name)
    if ENCODED_BYTE.search(name) and name.isascii():
        # Other escapes stay: a file that was once downloaded may really be named `my%20talk.mp3`.
        escaped = unquote_to_bytes(name)
        name = _as_utf8(escaped) or _as_cyrillic(escaped) or name
    return clean_name(name)


def decoded(sent: bytes) -> str:
    """Text in UTF-8 or else in what the bytes look like: an encoding of Russian, or of Western Europe."""
    return _as_utf8(sent) or _as_cyrillic(sent) or sent.decode(WESTERN, errors="ignore")


def _as_utf8(sent: bytes) -> str:
    """The text; empty unless it is UTF-8, possibly with a character cut in half, or with surrogates (CESU-8)."""
    try:
        return sent.decode()
    except UnicodeDecodeError:
        pass
    try:
        return sent.decode(errors="surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    except UnicodeDecodeError:
        pass
    text = sent.decode(errors="ignore")
    lost = len(sent) - len(text.encode())
    several_bytes = sum(len(character.encode()) for character in text if not character.isascii())
    return text if 2 * lost < several_bytes else ""


def _as_cyrillic(sent: bytes) -> str:
    """The text in the encoding in which it looks most like words in Cyrillic; empty if it does in none."""
    texts = [sent.decode(encoding, errors="replace") for encoding in CYRILLIC]
    oddities = [_oddities(text) for text in texts]
    fewest = min(oddities)
    return texts[oddities.index(fewest)] if fewest < 0.5 else ""


def _oddities(text: str) -> float:
    """How unlike words in Cyrillic a text is: 0 like them, from 0.5 on not at all."""
    words = [word for word in re.findall(r"[^\W\d_]+", text) if not word.isascii()]
    letters = sum(map(len, words))
    if max(map(len, words), default=0) < 2 or not all(_is_cyrillic(word) for word in words):
        return 1.0
    signs = sum(not (sign.isascii() or sign.isalnum() or sign in USUAL_SIGNS) for sign in text)
    capitals_inside = sum(len(re.findall(r"(?<=[^\W\d_A-ZА-Я])(?=[A-ZА-ЯЁ])", word)) for word in words)
    unusual = sum(letter not in USUAL_LETTERS for word in words for letter in word.lower())
    return (2 * signs + capitals_inside + unusual) / letters


def _is_cyrillic(word: str) -> bool:
    return all(unicodedata.name(letter, "").startswith("CYRILLIC") for letter in word)


def _without_encoded_words(name: str) -> str:
    """A name that a mail program's library escaped (RFC 2047), as it was."""
    try:
        return str(make_header(decode_header(name)))
    except (HeaderParseError, LookupError, ValueError):
        return name
