"""Languages as people and programs write them."""

import pytest

from transcription.whisper.language_names import OTHER_NAMES
from transcription.whisper.options import LANGUAGES, language_code

WRITTEN = {
    "ru": "ru RU ru-RU ru_RU ru_RU.UTF-8 ru_RU@euro rus RUS Russian русский Русский",
    "en": "en eng en-GB en_US.utf8 English",
    "de": "deu ger deutsch Deutsch German de-AT",
    "es": "spa español Español espanol castellano Spanish",
    "fr": "fra fre français Francais",
    "zh": "zho chi cmn 中文 普通话 Chinese zh-Hans-CN Mandarin",
    "nl": "nld dut Nederlands Flemish",
    "cs": "ces cze čeština Cesky",
    "ro": "ron rum mol Moldovan română",
    "no": "nor nob nb-NO norsk",
    "he": "heb iw עברית",
    "jw": "jw jv jav",
    "pt": "por pt-BR português",
    "ja": "jpn 日本語",
    "uk": "ukr українська",
    "my": "mya bur burmese",
    "tl": "tgl fil Filipino",
}


@pytest.mark.parametrize(("code", "names"), WRITTEN.items())
def test_a_language_is_known_by_its_codes_and_names(code: str, names: str) -> None:
    assert {language_code(name) for name in names.split()} == {code}


def test_a_country_in_parentheses_may_follow() -> None:
    assert language_code("Portuguese (Brazil)") == "pt"
    assert language_code("Chinese (Simplified)") == "zh"


@pytest.mark.parametrize("nothing", ["", " ", "auto", "Auto", "None", "null", "undefined", "und", "NULL"])
def test_what_programs_send_for_nothing_asks_for_detection(nothing: str) -> None:
    assert language_code(nothing) is None


@pytest.mark.parametrize("unknown", ["klingon", "xx", "xx-RU", "r", "-", "_ru", "(", "ru en", "ru,en", "0", "руский"])
def test_anything_else_is_no_language(unknown: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        language_code(unknown)


def test_every_language_has_a_code_of_three_letters_and_no_name_means_two() -> None:
    assert OTHER_NAMES.keys() == LANGUAGES.keys()
    named: dict[str, str] = {}
    for code, names in OTHER_NAMES.items():
        for name in (code, LANGUAGES[code], *names.split(", ")):
            assert named.setdefault(name, code) == code, name
            assert language_code(name) == code, name
        assert len(code) == 3 or len(names.split(", ")[0]) == 3, code
