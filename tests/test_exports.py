import csv
import io
import re
from dataclasses import replace

import pytest
from django.utils import translation
from docx import Document
from hypothesis import given
from hypothesis import strategies as st

from transcription.text import exports
from transcription.whisper.result import Segment, Word

TIME = r"(\d{2,}):([0-5]\d):([0-5]\d)[,.](\d{3})"


def segment(start: float, end: float, text: str) -> Segment:
    return Segment(
        start=start, end=end, text=text, seek=0, tokens=(), temperature=0.0, avg_logprob=-0.1,
        compression_ratio=1.0, no_speech_prob=0.0,
    )  # fmt: skip


HELLO = [segment(0, 1.5, " Hello there."), segment(1.5, 3723.0421, " Добрый день!")]


def milliseconds(hours: str, minutes: str, seconds: str, rest: str) -> int:
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(rest)


def parse_cues(export: str) -> list[tuple[int, int, str]]:
    """The cues of an SRT or VTT file, as a player reads it: a line with an arrow begins one, an empty line ends it."""
    cues = []
    for block in re.split(r"\n\n", export):
        lines = block.split("\n")
        for index, line in enumerate(lines):
            if "-->" in line:
                times = re.fullmatch(f"{TIME} --> {TIME}", line)
                assert times is not None
                groups = times.groups()
                cues.append((milliseconds(*groups[:4]), milliseconds(*groups[4:]), "\n".join(lines[index + 1 :])))
    return cues


# Half of all texts are made of what these formats are made of.
TEXTS = st.text(st.characters()) | st.text(st.sampled_from("-> \n\r\t\0\x85\u2028&<=+'\"0123:,.WEBVTT\ud800"))
SEGMENTS = st.lists(st.builds(segment, st.floats(-10, 1e7), st.floats(-10, 1e7), TEXTS), max_size=5)


def test_txt_is_one_segment_a_line():
    assert exports.to_txt(HELLO) == "Hello there.\nДобрый день!\n"


def test_srt_counts_from_one_and_has_commas():
    assert exports.to_srt(HELLO) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n2\n00:00:01,500 --> 01:02:03,042\nДобрый день!\n\n"
    )


def test_vtt_has_its_header_and_points():
    assert exports.to_vtt(HELLO) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there.\n\n00:00:01.500 --> 01:02:03.042\nДобрый день!\n\n"
    )


def test_tsv_has_milliseconds():
    assert exports.to_tsv(HELLO) == "start\tend\ttext\n0\t1500\tHello there.\n1500\t3723042\tДобрый день!\n"


def test_an_empty_transcript_is_an_empty_file():
    assert [exports.FORMATS[name].render([]).decode() for name in ("txt", "srt", "vtt", "tsv")] == [
        "", "", "WEBVTT\n\n", "start\tend\ttext\n",
    ]  # fmt: skip


def test_more_than_99_hours_get_more_digits():
    assert exports.to_srt([segment(360_000, 400_000, "late")]).startswith("1\n100:00:00,000 --> 111:06:40,000\n")


def test_a_text_cannot_end_its_cue():
    text = "a\n\n2\n00:00:00,000 --> 00:00:01,000\nfalse"

    assert [cue[2] for cue in parse_cues(exports.to_srt([segment(0, 1, text)]))] == [
        "a 2 00:00:00,000 → 00:00:01,000 false"
    ]


def test_a_text_cannot_write_marks_into_vtt():
    assert exports.to_vtt([segment(0, 1, "<v Bob>R&D --> &lt;")]).endswith("\n&lt;v Bob>R&amp;D → &amp;lt;\n\n")


@pytest.mark.parametrize("mark", list("=+-@＝＋－＠"))
def test_a_text_cannot_be_a_spreadsheets_formula(mark):
    assert exports.to_tsv([segment(0, 1, f"\t{mark}1")]).endswith(f"0\t1000\t'{mark}1\n")


@given(SEGMENTS)
def test_every_cue_of_srt_and_vtt_is_read_back(segments):
    for export in (exports.to_srt(segments), exports.to_vtt(segments)):
        cues = parse_cues(export)

        assert len(cues) == len(segments)
        assert all(0 <= start <= end for start, end, _ in cues)
        assert all("\n" not in text for _, _, text in cues)


@given(SEGMENTS)
def test_every_line_of_txt_and_tsv_is_read_back(segments):
    rows = exports.to_tsv(segments).splitlines()[1:]

    assert len(exports.to_txt(segments).splitlines()) == len(segments)
    assert len(rows) == len(segments)
    assert all(re.fullmatch(r"\d+\t\d+\t([^\t=+@-][^\t]*)?", row) for row in rows)


@given(SEGMENTS)
def test_every_export_can_be_written_and_holds_no_control_characters(segments):
    for name, export in exports.FORMATS.items():
        file = export.render(segments, title="What was said")
        if name == "docx":
            said = [paragraph.text.partition("\t")[2] for paragraph in Document(io.BytesIO(file)).paragraphs[1:]]
            assert said == exports.to_txt(segments).splitlines()
        else:
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", file.decode())


@given(SEGMENTS)
def test_every_row_of_a_table_is_read_back(segments):
    rows = list(csv.reader(io.StringIO(exports.to_csv(segments))))

    assert rows[0] == ["\N{BYTE ORDER MARK}start", "end", "text"]
    assert len(rows) == 1 + len(segments)
    assert not any(exports.FORMULA.match(text) for _, _, text in rows[1:])


def test_a_table_counts_in_seconds():
    assert exports.to_csv(HELLO).splitlines()[1:] == ["0.000,1.500,Hello there.", "1.500,3723.042,Добрый день!"]


def test_lyrics_have_a_time_a_line_and_with_words_one_a_word():
    assert exports.to_lrc(HELLO) == "[00:00.00]Hello there.\n[00:01.50]Добрый день!\n"
    said = [spoken((" Good", 0.2, 0.5), (" [day]", 61.5, 62.0))]
    assert exports.to_lrc(said, True) == "[00:00.00]<00:00.20>Good <01:01.50>(day)\n"
    assert exports.to_lrc([segment(6000.25, 6001, "late")]) == "[100:00.25]late\n"


def test_a_document_has_its_title_and_its_times():
    file = exports.FORMATS["docx"].render(HELLO, title="Lecture")
    document = Document(io.BytesIO(file))

    told = [paragraph.text for paragraph in document.paragraphs]
    assert told == ["Lecture", "00:00:00\tHello there.", "00:00:01\tДобрый день!"]
    assert (document.core_properties.title, document.core_properties.author) == ("Lecture", "")


def spoken(*words: tuple[str, float, float]) -> Segment:
    said = tuple(Word(text, start, end, 0.9) for text, start, end in words)
    return replace(segment(0, 2, "".join(word.word for word in said)), words=said)


def test_the_word_being_spoken_is_marked():
    told = exports.to_srt([spoken((" Good", 0.2, 0.5), (" day.", 0.5, 1.0))], True)
    assert [cue[2] for cue in parse_cues(told)] == ["Good day.", "<u>Good</u> day.", "Good <u>day.</u>"]
    assert told.startswith("1\n00:00:00,000 --> 00:00:00,200\nGood day.\n\n2\n00:00:00,200 --> 00:00:00,500\n")


def test_a_marked_word_cannot_write_marks_itself():
    told = exports.to_vtt([spoken((" <b>", 0.0, 0.5), ("&c", 0.5, 1.0))], True)
    assert "<u>&lt;b></u>&amp;c" in told
    assert "&lt;b><u>&amp;c</u>" in told


def test_without_word_times_nothing_is_marked():
    assert exports.to_srt(HELLO, True) == exports.to_srt(HELLO)


def test_words_whose_times_overlap_give_cues_in_order():
    told = exports.to_srt([spoken((" a", 0.0, 0.9), (" b", 0.5, 0.7), (" c", 0.6, 1.2))], True)
    times = [time for cue in parse_cues(told) for time in cue[:2]]
    assert times == sorted(times)


# ------------------------------------------------------------------ several channels

CALL = [
    replace(segment(0, 2, " Hello, who is it?"), channel=1),
    replace(segment(1.5, 3, " =Anna."), channel=2),
    replace(segment(4, 5, " I know."), channel=1),
]


def test_where_there_are_several_channels_each_text_begins_with_its_own() -> None:
    assert exports.to_txt(CALL) == "Channel 1: Hello, who is it?\nChannel 2: =Anna.\nChannel 1: I know.\n"
    assert parse_cues(exports.to_srt(CALL))[1] == (1500, 3000, "Channel 2: =Anna.")
    assert parse_cues(exports.to_vtt(CALL))[1] == (1500, 3000, "Channel 2: =Anna.")
    assert exports.to_tsv(CALL).splitlines()[2] == "1500\t3000\tChannel 2: =Anna."
    assert exports.to_lrc(CALL).splitlines()[1] == "[00:01.50]Channel 2: =Anna."
    document = Document(io.BytesIO(exports.FORMATS["docx"].render(CALL)))
    assert [paragraph.text for paragraph in document.paragraphs][1] == "00:00:01\tChannel 2: =Anna."


def test_a_table_has_a_column_for_the_channel() -> None:
    assert exports.to_csv(CALL).removeprefix("\ufeff").splitlines()[:3] == [
        "start,end,channel,text", '0.000,2.000,1,"Hello, who is it?"', "1.500,3.000,2,'=Anna.",
    ]  # fmt: skip


def test_a_channel_is_named_in_the_readers_language() -> None:
    with translation.override("ru"):
        assert exports.to_txt(CALL).splitlines()[1] == "Канал 2: =Anna."


def test_a_single_channel_is_not_named() -> None:
    one = [CALL[0], CALL[2]]

    assert exports.to_txt(one) == "Hello, who is it?\nI know.\n"
    assert exports.to_csv(one) == exports.to_csv([replace(each, channel=0) for each in one])


def test_the_name_of_the_channel_is_no_spoken_word() -> None:
    words = tuple(Word(word, at, at + 0.5, 1.0) for word, at in ((" Good", 0.0), (" day.", 0.5)))
    said = [replace(CALL[0], start=0, end=1, words=words), CALL[1]]

    assert [cue[2] for cue in parse_cues(exports.to_vtt(said, True))][:2] == [
        "Channel 1: <u>Good</u> day.", "Channel 1: Good <u>day.</u>",
    ]  # fmt: skip
    assert exports.to_lrc(said, True).splitlines()[0] == "[00:00.00]Channel 1: <00:00.00>Good <00:00.50>day."
