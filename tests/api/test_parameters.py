"""A client says how its recording is to be transcribed."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from tests.api.rows import a_done_job
from tests.parameter_values import BAD, GOOD
from transcription.models import Job, Worker
from transcription.parameters import ALIASES, OPTIONS, PARAMETERS
from transcription.whisper.options import APPENDED, PREPENDED, TranscriptionOptions

JOBS = "/api/v1/jobs/"

ANOTHER_ENGINES = {"top_p": "0.9", "batch_size": "4", "carry_initial_prompt": "true"}


def sound() -> SimpleUploadedFile:
    return SimpleUploadedFile("a.mp3", b"RIFF" + bytes(100))


def accepted(answer: Any) -> Job:
    assert answer.status_code in (200, 202), answer.content
    return Job.objects.latest("created_at")


def native(api: Client, **form: Any) -> Job:
    return accepted(api.post(JOBS, {"file": sound(), **form}))


def refused(api: Client, **form: Any) -> dict[str, list[str]]:
    answer = api.post(JOBS, {"file": sound(), **form})
    assert answer.status_code == 400, answer.content
    assert not Job.objects.exists()
    problems: dict[str, list[str]] = answer.json()
    return problems


def as_json(api: Client, **values: Any) -> Any:
    recording = str(Job.objects.latest("created_at").recording_id)
    return api.generic(
        "POST", JOBS, json.dumps({"recording": recording, **values}), content_type="application/json"
    )  # fmt: skip


def test_every_option_has_a_line_in_the_tables() -> None:
    own_to_openai = ("languages",)  # of its endpoint alone
    options = [field.name for field in fields(TranscriptionOptions) if field.name not in own_to_openai]
    assert [parameter.name for parameter in OPTIONS] == [name for name, *_ in GOOD] == options
    assert BAD.keys() == {parameter.name for parameter in PARAMETERS}


@pytest.mark.parametrize(("name", "text", "value", "option"), GOOD, ids=[name for name, *_ in GOOD])
def test_it_arrives_through_each_endpoint(
    api: Client, ends: dict[str, Any], name: str, text: str, value: Any, option: Any
) -> None:
    expected = replace(TranscriptionOptions(), **{name: option})
    alone = {"file": sound()}
    for job in (
        native(api, **{name: text}),
        accepted(as_json(api, **{name: value})),
        accepted(api.post("/transcribe", {"file": sound(), name: text})),
        accepted(api.post("/transcribe", {"file": sound(), "params": json.dumps({name: value})})),
        accepted(api.post("/transcribe", alone, query_params={name: text})),
    ):
        assert job.transcription_options == expected
        assert job.warnings == []


@pytest.mark.parametrize(("name", "sent"), [(name, value) for name, values in BAD.items() for value in values])
def test_another_value_is_refused_by_name(api: Client, name: str, sent: Any) -> None:
    job = native(api)
    answer = as_json(api, **{name: sent})
    assert answer.status_code == 400
    assert list(answer.json()) == [name]
    assert answer.json()[name][0]
    answer = api.post("/transcribe", {"file": sound(), "params": json.dumps({name: sent})})
    assert (answer.status_code, answer.json()["field"]) == (422, name)
    assert name in answer.json()["error"]
    assert Job.objects.get() == job


def test_the_sentence_says_what_is_allowed_in_the_readers_language(api: Client) -> None:
    said = refused(api, up_speed="9", best_of="17", prefix="a" * 201, task="sing", verbose="-", patience="-1")
    assert said == {
        "up_speed": ["`up_speed` is a number from 0.5 to 3."],
        "best_of": ["`best_of` is a whole number from 1 to 16."],
        "prefix": ["`prefix` is text of 1 to 200 characters."],
        "task": ["`task` is one of: transcribe, translate."],
        "verbose": ["`verbose` is true or false."],
        "patience": ["`patience` is a number above 0, at most 100."],
    }


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_alias_is_as_good_as_the_name(api: Client, alias: str, name: str) -> None:
    text, option = next((text, option) for known, text, _, option in GOOD if known == name)
    assert getattr(native(api, **{alias: text}).transcription_options, name) == option
    answer = api.post(JOBS, {"file": sound(), alias: text, name: "0.25"})
    assert "more than once" in answer.json()[name][0]


@pytest.mark.parametrize(("sent", "named"), [("true", "float16"), ("0", "float32")])
def test_fp16_is_a_compute_type(api: Client, sent: str, named: str) -> None:
    assert native(api, fp16=sent).transcription_options.compute_type == named
    assert native(api, fp16=sent, compute_type=named).transcription_options.compute_type == named


def test_fp16_may_not_contradict_the_compute_type(api: Client) -> None:
    assert "disagree" in refused(api, fp16="true", compute_type="int8")["fp16"][0]


@pytest.mark.parametrize(
    ("name", "sent", "option"),
    [
        ("clip_timestamps", "0", (0.0,)),
        ("clip_timestamps", "[0, 5, 5, 9]", (0.0, 5.0, 5.0, 9.0)),
        ("clip_timestamps", ["0", "5"], (0.0, 5.0)),
        ("suppress_tokens", "[]", ()),
        ("suppress_tokens", ["-1", "7"], (-1, 7)),
        ("compute_type", "BF16", "bfloat16"),
        ("word_timestamps", "ON", True),
        ("seed", "5.0", 5),
        ("prepend_punctuations", "  ", PREPENDED),
        ("append_punctuations", "", APPENDED),
    ],
)
def test_a_value_may_be_written_in_more_than_one_way(api: Client, name: str, sent: Any, option: Any) -> None:
    assert getattr(native(api, **{name: sent}).transcription_options, name) == option


def test_json_null_is_nothing_sent(api: Client, settings: Settings) -> None:
    native(api)
    settings.DEFAULTS = {"seed": 7}
    assert accepted(as_json(api, seed=None, hotwords=None)).transcription_options == TranscriptionOptions(seed=7)


THRESHOLDS = (
    "compression_ratio_threshold", "logprob_threshold", "no_speech_threshold", "hallucination_silence_threshold"
)  # fmt: skip
OFF = replace(TranscriptionOptions(), **dict.fromkeys(THRESHOLDS))


@pytest.mark.parametrize("nothing", ["", " ", "none", "None", "null", "off"])
def test_nothing_turns_a_threshold_off_at_every_endpoint(
    api: Client, ends: dict[str, Any], settings: Settings, nothing: str
) -> None:
    settings.DEFAULTS = {"hallucination_silence_threshold": 0.8}
    off = dict.fromkeys((*THRESHOLDS[:1], "log_prob_threshold", *THRESHOLDS[2:]), nothing)
    alone = {"file": sound()}
    for answer in (
        api.post(JOBS, {"file": sound(), **off}),
        api.post("/transcribe", {"file": sound(), **off}),
        api.post("/transcribe", alone, query_params=off),
        api.post("/api/transcribe", {"file": sound(), "params": json.dumps(off)}),
        api.post("/asr", {"audio_file": sound()}, query_params=off),
        api.post("/v1/audio/transcriptions", {"file": sound(), **off}),
    ):
        assert accepted(answer).transcription_options == OFF
    assert accepted(as_json(api, **dict.fromkeys(THRESHOLDS))).transcription_options == OFF
    nulls = json.dumps(dict.fromkeys(THRESHOLDS))
    assert accepted(api.post("/transcribe", {"file": sound(), "params": nulls})).transcription_options == OFF


def test_a_threshold_is_not_on_and_off_at_once(api: Client) -> None:
    assert "more than once" in refused(api, no_speech_threshold=["", "0.5"])["no_speech_threshold"][0]


def test_a_threshold_that_is_not_sent_is_the_default(api: Client) -> None:
    assert native(api, initial_prompt="").transcription_options == TranscriptionOptions()


# ------------------------------------------------------------------ what the engine cannot do


@pytest.mark.parametrize(("name", "sent"), ANOTHER_ENGINES.items())
def test_what_the_engine_cannot_do_is_refused_by_name(api: Client, name: str, sent: str) -> None:
    said = refused(api, **{name: sent})
    assert said == {name: [f"`{name}` is nothing that faster-whisper can do. Leave it out."]}


def test_the_compat_endpoints_take_it_with_a_warning(api: Client, ends: dict[str, Any]) -> None:
    answer = api.post("/transcribe", {"file": sound(), **ANOTHER_ENGINES, "beam_size": "2"})
    told = answer.json()
    assert sorted(told["warnings"]) == [
        "not_honoured:batch_size", "not_honoured:carry_initial_prompt", "not_honoured:top_p",
    ]  # fmt: skip
    assert (told["top_p"], told["batch_size"], told["carry_initial_prompt"], told["beam_size"]) == (1.0, None, False, 2)


def test_mlx_whisper_cannot_do_more(api: Client, settings: Settings, ends: dict[str, Any]) -> None:
    settings.ENGINE = "mlx-whisper"
    asked = {"beam_size": "5", "seed": "1", "length_penalty": "1.5", "compute_type": "int8"}
    answer = api.post(JOBS, {"file": sound(), **asked, "prefix": "So", "best_of": "3"})
    assert answer.json() == {
        "beam_size": ["`beam_size` is nothing that mlx-whisper can do. Leave it out."],
        "seed": ["`seed` is nothing that mlx-whisper can do. Leave it out."],
        "length_penalty": ["`length_penalty` goes up to 1 with mlx-whisper."],
        "compute_type": ["`compute_type` is one of: float16, float32."],
    }
    told = api.post("/transcribe", {"file": sound(), **asked, "prefix": "So"}).json()
    assert sorted(told["warnings"]) == [f"not_honoured:{name}" for name in sorted(asked)]
    assert (told["compute_type"], told["prefix"]) == (None, "So")


def test_what_asks_for_nothing_is_honoured_by_every_engine(api: Client, settings: Settings) -> None:
    settings.ENGINE = "mlx-whisper"
    native(api, beam_size="1", patience="1", top_p="1", repetition_penalty="1.0", no_repeat_ngram_size="0")


def test_a_prefix_and_hotwords_do_not_go_together(api: Client) -> None:
    said = refused(api, prefix="So", hotwords="Anna")["hotwords"]
    assert said == ["`hotwords` and `prefix` do not go together with faster-whisper. Leave one of them out."]


def test_a_beam_search_has_patience_for_one_text_at_least(api: Client, settings: Settings) -> None:
    said = ["`patience` times `beam_size` is at least 1."]
    assert refused(api, patience="0.1") == refused(api, patience="0.4", beam_size="2") == {"patience": said}
    settings.DEFAULTS = {"patience": 0.4}
    assert native(api, beam_size="2").transcription_options.patience == 1.0


# ------------------------------------------------------------------ what the installation says


def test_an_installations_defaults_hold_where_nothing_is_sent(api: Client, settings: Settings) -> None:
    settings.DEFAULTS = {name: option for name, _, _, option in GOOD if name != "prefix"}
    job = native(api, up_speed="1", language="auto")
    expected = TranscriptionOptions(**(settings.DEFAULTS | {"up_speed": 1.0, "language": None}))
    assert job.transcription_options == expected


@pytest.mark.parametrize(
    ("default", "sent", "option", "becomes"),
    [
        ({"length_penalty": 2.0}, {}, "length_penalty", None),
        ({"compute_type": "int8"}, {}, "compute_type", None),
        ({"language": "yue"}, {"model": "base"}, "language", None),
        ({"language": "yue"}, {"model": "turbo"}, "language", "yue"),
    ],
)
def test_a_default_that_cannot_be_honoured_becomes_its_best(
    api: Client, settings: Settings, default: dict[str, Any], sent: dict[str, str], option: str, becomes: Any
) -> None:
    settings.ENGINE, settings.DEFAULTS = "mlx-whisper", default
    job = native(api, **sent)
    assert getattr(job.transcription_options, option) == becomes
    assert job.warnings == []


@pytest.mark.parametrize(("sent", "other"), [("prefix", "hotwords"), ("hotwords", "prefix")])
def test_a_default_gives_way_to_what_is_sent(api: Client, settings: Settings, sent: str, other: str) -> None:
    settings.DEFAULTS = {"prefix": "So", "hotwords": "Anna"}
    options = native(api, **{sent: "Boris"}).transcription_options
    assert (getattr(options, sent), getattr(options, other)) == ("Boris", None)


def test_the_default_priority_is_the_installations(api: Client, settings: Settings) -> None:
    settings.DEFAULT_PRIORITY = "low"
    assert native(api).priority == Job.Priority.LOW
    assert native(api, priority="Normal").priority == Job.Priority.NORMAL


# ------------------------------------------------------------------ what the model and the workers have


def test_a_language_that_the_model_does_not_know_is_refused(api: Client) -> None:
    said = refused(api, language="yue", model="base")["language"]
    assert said == ["`language` is none that the model base knows. Models that know it: large-v3, turbo."]
    for model in ("large", "turbo", "nano"):  # the last is in no catalogue
        assert native(api, language="Cantonese", model=model).transcription_options.language == "yue"


def a_worker(engine: str, device: str, compute_types: list[str], threads: int = 4) -> Worker:
    return Worker.objects.create(
        kind="device", queue=f"device.{device}", device=device, hostname="elsewhere", pid=1, engine=engine,
        compute_types=compute_types, threads=threads,
    )  # fmt: skip


@pytest.fixture
def fleet(db: None) -> None:
    """Three machines: a Mac, a box with two GPUs, and one with neither."""
    a_worker("mlx-whisper", "mps", ["float16", "float32"])
    a_worker("faster-whisper", "cuda:0", ["float16", "float32", "int8", "int8_float16"])
    a_worker("faster-whisper", "cuda:1", ["float16", "float32", "int8", "int8_float16"])
    a_worker("faster-whisper", "cpu", ["float32", "int8"], threads=16)


@pytest.mark.parametrize(
    ("sent", "wish"),
    [
        ({}, ("", "")),
        ({"engine": "auto", "device": "auto"}, ("", "")),
        ({"engine": "mlx-whisper"}, ("mlx-whisper", "")),
        ({"device": "cpu"}, ("", "cpu")),
        ({"device": "CUDA"}, ("", "cuda")),
        ({"device": "cuda:1"}, ("", "cuda:1")),
        ({"device": "mps"}, ("", "mps")),
        ({"device": "gpu"}, ("", "cuda")),
        ({"device": "gpu", "engine": "faster-whisper"}, ("faster-whisper", "cuda")),
        # what not every worker can honour goes to those that can
        ({"beam_size": "3"}, ("faster-whisper", "")),
        ({"compute_type": "int8"}, ("faster-whisper", "")),
        ({"compute_type": "int8_float16"}, ("", "cuda")),
        ({"fp16": "true", "beam_size": "2"}, ("", "cuda")),
        ({"threads": "9"}, ("", "cpu")),
        ({"fp16": "false"}, ("", "")),
    ],
)
def test_a_wish_is_for_those_workers_that_can_fulfil_it(
    api: Client, fleet: None, sent: dict[str, str], wish: tuple[str, str]
) -> None:
    job = native(api, **sent)
    assert (job.asked_engine, job.asked_device) == wish


@pytest.mark.parametrize(
    ("sent", "field", "said"),
    [
        ({"engine": "ctranslate2"}, "engine", "`engine` is one of: faster-whisper, mlx-whisper."),
        ({"device": "cuda:2"}, "device", "`device` is one of: cpu, cuda:0, cuda:1, mps."),
        ({"device": "cpu", "engine": "mlx-whisper"}, "device", "`device` is one of: mps."),
        ({"compute_type": "int16"}, "compute_type", "float16, float32, int8, int8_float16."),
        ({"compute_type": "fp16", "device": "cpu"}, "compute_type", "`compute_type` is one of: float32, int8."),
        ({"threads": "17"}, "threads", "`threads` is a whole number from 1 to 16."),
        ({"top_p": "0.5"}, "top_p", "nothing that"),
        ({"beam_size": "3", "engine": "mlx-whisper"}, "beam_size", "nothing that mlx-whisper can do"),
    ],
)
def test_what_no_worker_has_is_refused_with_what_there_is(
    api: Client, fleet: None, sent: dict[str, str], field: str, said: str
) -> None:
    assert said in refused(api, **sent)[field][0]


def test_an_unknown_device_is_refused_on_the_compat_endpoints_too(api: Client, fleet: None) -> None:
    answer = api.post("/transcribe", {"file": sound(), "device": "tpu"})
    assert (answer.status_code, answer.json()["field"]) == (422, "device")


def test_a_worker_that_is_gone_announces_nothing(api: Client, fleet: None) -> None:
    Worker.objects.exclude(device="cpu").update(heartbeat_at="2020-01-01T00:00:00Z")
    assert "device" in refused(api, device="mps")


@pytest.mark.parametrize(
    ("installation", "taken", "not_taken"),
    [
        ("auto", ["cpu", "cuda", "cuda:3", "gpu"], ["mps"]),
        ("cpu", ["cpu"], ["cuda", "gpu"]),
        ("cuda:1", ["cuda", "cuda:1", "gpu"], ["cuda:0", "cpu"]),
    ],
)
def test_while_no_worker_lives_the_settings_say_what_there_will_be(
    api: Client, settings: Settings, installation: str, taken: list[str], not_taken: list[str]
) -> None:
    settings.MODEL_DEVICE = installation
    for device in taken:
        assert native(api, device=device).asked_device == device.replace("gpu", "cuda")
    for device in not_taken:
        assert "device" in api.post(JOBS, {"file": sound(), "device": device}).json()


# ------------------------------------------------------------------ what is told of a job


def test_the_answer_repeats_what_was_asked_under_its_name(api: Client, ends: dict[str, Any]) -> None:
    asked = {"sample_len": "40", "without_timestamps": "true", "clip_timestamps": "0,5", "fp16": "false"}
    told = api.post("/transcribe", {"file": sound(), **asked}).json()
    assert (told["max_length"], told["no_timestamps"], told["clip_timestamps"]) == (40, True, [0.0, 5.0])
    assert (told["compute_type"], told["seed"], told["suppress_tokens"]) == ("float32", None, [-1])
    assert not {"sample_len", "without_timestamps", "fp16"} & told.keys()


def test_a_job_from_before_there_were_so_many_options_is_still_told(api: Client, owner: Any) -> None:
    old = {
        "language": "en", "task": "transcribe", "word_timestamps": False, "initial_prompt": None, "temperature": [0.0],
        "beam_size": 5, "vad_filter": True, "sections": None,
    }  # fmt: skip
    job = a_done_job(owner, options=old)
    assert job.transcription_options == TranscriptionOptions(language="en", temperature=(0.0,))
    told = api.get(f"/job/{job.pk}").json()
    assert (told["up_speed"], told["temperature"], told["beam_size"]) == (1.0, [0.0], 5)
