"""CTranslate2's weights under mlx-whisper's names."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctranslate2.specs.whisper_spec import WhisperSpec
from faster_whisper import WhisperModel
from numpy.typing import NDArray

from tests.server import NANO
from transcription.whisper import convert
from transcription.whisper.engine import ENGINES
from transcription.workers import devices

pytestmark = pytest.mark.heavy

MODEL = NANO / "faster-whisper-nano"
STATE, ENCODERS, DECODERS, HEADS = 8, 1, 2, 2  # a Whisper that only its names and shapes make one

Array = NDArray[Any]


def tensors(folder: Path) -> dict[str, Array]:
    """What is in weights.safetensors, read by the format's letter: all bytes belong to one tensor each, in order."""
    content = (folder / "weights.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "mlx"}
    found, place = {}, 8 + length
    for name, about in header.items():
        start, end = (8 + length + offset for offset in about["data_offsets"])
        assert start == place
        dtype = {"F16": "<f2", "F32": "<f4", "I32": "<i4"}[about["dtype"]]
        found[name] = np.frombuffer(content[start:end], dtype).reshape(about["shape"])
        place = end
    assert place == len(content)
    return found


def expected_shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The parameters of mlx-whisper's `Whisper(ModelDimensions)`, but for the alignment heads."""
    state = config["n_audio_state"]
    yield "encoder.conv1.weight", (state, 3, config["n_mels"])
    yield "encoder.conv2.weight", (state, 3, state)
    yield "decoder.token_embedding.weight", (config["n_vocab"], state)
    yield "decoder.positional_embedding", (config["n_text_ctx"], state)
    yield from ((f"encoder.{name}.bias", (state,)) for name in ("conv1", "conv2", "ln_post"))
    yield "encoder.ln_post.weight", (state,)
    yield from ((f"decoder.ln.{name}", (state,)) for name in ("weight", "bias"))
    for side, layers, attentions in (
        ("encoder", config["n_audio_layer"], ["attn"]),
        ("decoder", config["n_text_layer"], ["attn", "cross_attn"]),
    ):
        for block in (f"{side}.blocks.{layer}" for layer in range(layers)):
            for attention in attentions:
                for part in ("query", "key", "value", "out"):
                    yield f"{block}.{attention}.{part}.weight", (state, state)
                for part in ("query", "value", "out"):
                    yield f"{block}.{attention}.{part}.bias", (state,)
            for norm in (*(f"{attention}_ln" for attention in attentions), "mlp_ln"):
                yield from ((f"{block}.{norm}.{name}", (state,)) for name in ("weight", "bias"))
            yield f"{block}.mlp1.weight", (4 * state, state)
            yield f"{block}.mlp1.bias", (4 * state,)
            yield f"{block}.mlp2.weight", (state, 4 * state)
            yield f"{block}.mlp2.bias", (state,)


def ctranslate2_shape(name: str, n_mels: int, n_vocab: int) -> tuple[int, ...]:
    fused = {"self_attention/linear_0": 3, "/attention/linear_1": 2, "ffn/linear_0": 4}
    rows = STATE * next((times for layer, times in fused.items() if layer in name), 1)
    columns = 4 * STATE if "ffn/linear_1" in name else STATE
    if name.startswith("decoder/embeddings"):
        return n_vocab, STATE
    if name.startswith("encoder/conv") and name.endswith("weight"):
        return STATE, n_mels if "conv1" in name else STATE, 3
    return (rows, columns) if name.endswith("weight") else (rows,)


def whisper(
    folder: Path, *, n_mels: int = 80, languages: int = 99, multilingual: bool = True, quantization: str | None = None
) -> dict[str, Array]:
    """Have CTranslate2 write a Whisper of random numbers; return them by CTranslate2's names, as they were before."""
    rng = np.random.default_rng(8)
    specials = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{language}|>" for language in range(languages))]
    specials += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nocaptions|>"]
    specials += ["<|notimestamps|>", *(f"<|{tick * 0.02:.2f}|>" for tick in range(1501))]
    vocabulary = [f"word{number}" for number in range(50256 + multilingual)] + specials
    given: dict[str, Array] = {}

    def fill(layer: Any, name: str, value: object) -> None:
        key = name.rpartition("/")[2]
        if key in ("weight", "bias", "gamma", "beta") and "projection" not in name:
            given[name] = rng.normal(size=ctranslate2_shape(name, n_mels, len(vocabulary))).astype("<f4")
            setattr(layer, key, given[name].copy())  # it quantises in place

    spec = WhisperSpec(ENCODERS, HEADS, DECODERS, HEADS)
    spec._visit(fill)
    spec.decoder.projection.weight = spec.decoder.embeddings.weight
    for name, side, length in (("encoder", spec.encoder, 1500), ("decoder", spec.decoder, 448)):
        given[f"{name}/position_encodings/encodings"] = rng.normal(size=(length, STATE)).astype("<f4")
        side.position_encodings.encodings = given[f"{name}/position_encodings/encodings"]
    spec.register_vocabulary(vocabulary)
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(exist_ok=True)
    spec.save(str(folder))
    return given


def test_a_converted_model_has_what_mlx_whisper_asks_for_and_nothing_else(tmp_path: Path) -> None:
    convert.ctranslate2_to_mlx(MODEL, tmp_path / "whisper-nano")
    config = json.loads((tmp_path / "whisper-nano" / "config.json").read_text())
    assert config == {
        "model_type": "whisper", "n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 128, "n_audio_head": 2,
        "n_audio_layer": 3, "n_vocab": 51865, "n_text_ctx": 448, "n_text_state": 128, "n_text_head": 2,
        "n_text_layer": 2,
    }  # fmt: skip
    found = tensors(tmp_path / "whisper-nano")
    heads = found.pop("alignment_heads")
    assert heads.tolist() == json.loads((MODEL / "config.json").read_text())["alignment_heads"]
    assert {name: values.shape for name, values in found.items()} == dict(expected_shapes(config))
    assert {values.dtype.str for values in found.values()} == {"<f2"}
    assert [path.name for path in tmp_path.iterdir()] == ["whisper-nano"]


@pytest.mark.parametrize(
    ("n_mels", "languages", "multilingual", "n_vocab"),
    [(80, 99, False, 51864), (80, 99, True, 51865), (128, 100, True, 51866)],
    ids=["base.en", "base", "turbo"],
)
def test_every_number_is_found_in_its_place(
    tmp_path: Path, n_mels: int, languages: int, multilingual: bool, n_vocab: int
) -> None:
    given = whisper(tmp_path / "ct2", n_mels=n_mels, languages=languages, multilingual=multilingual)
    convert.ctranslate2_to_mlx(tmp_path / "ct2", tmp_path / "mlx")
    config, found = json.loads((tmp_path / "mlx" / "config.json").read_text()), tensors(tmp_path / "mlx")
    assert (config["n_mels"], config["n_vocab"], config["n_text_layer"]) == (n_mels, n_vocab, DECODERS)
    assert {name: values.shape for name, values in found.items()} == dict(expected_shapes(config))

    def same(name: str, values: Array) -> None:
        np.testing.assert_array_equal(found[name], values, err_msg=name)

    for convolution in ("conv1", "conv2"):
        same(f"encoder.{convolution}.weight", given[f"encoder/{convolution}/weight"].transpose(0, 2, 1))
        same(f"encoder.{convolution}.bias", given[f"encoder/{convolution}/bias"])
    same("encoder.ln_post.bias", given["encoder/layer_norm/beta"])
    same("decoder.ln.weight", given["decoder/layer_norm/gamma"])
    same("decoder.token_embedding.weight", given["decoder/embeddings/weight"])
    same("decoder.positional_embedding", given["decoder/position_encodings/encodings"])
    for block, layer in (("encoder.blocks.0", "encoder/layer_0"), ("decoder.blocks.1", "decoder/layer_1")):
        fused = given[f"{layer}/self_attention/linear_0/weight"]
        same(f"{block}.attn.query.weight", fused[:STATE])
        same(f"{block}.attn.key.weight", fused[STATE : 2 * STATE])
        same(f"{block}.attn.value.weight", fused[2 * STATE :])
        same(f"{block}.attn.query.bias", given[f"{layer}/self_attention/linear_0/bias"][:STATE])
        same(f"{block}.attn.value.bias", given[f"{layer}/self_attention/linear_0/bias"][2 * STATE :])
        same(f"{block}.attn.out.weight", given[f"{layer}/self_attention/linear_1/weight"])
        same(f"{block}.attn_ln.weight", given[f"{layer}/self_attention/layer_norm/gamma"])
        same(f"{block}.mlp_ln.bias", given[f"{layer}/ffn/layer_norm/beta"])
        same(f"{block}.mlp1.weight", given[f"{layer}/ffn/linear_0/weight"])
        same(f"{block}.mlp2.weight", given[f"{layer}/ffn/linear_1/weight"])
    cross, source = "decoder.blocks.0.cross_attn", "decoder/layer_0/attention"
    same(f"{cross}.query.weight", given[f"{source}/linear_0/weight"])
    same(f"{cross}.key.weight", given[f"{source}/linear_1/weight"][:STATE])
    same(f"{cross}.value.weight", given[f"{source}/linear_1/weight"][STATE:])
    same(f"{cross}.value.bias", given[f"{source}/linear_1/bias"][STATE:])
    same(f"{cross}.out.bias", given[f"{source}/linear_2/bias"])
    same(f"{cross}_ln.bias", given[f"{source}/layer_norm/beta"])


@pytest.mark.parametrize(("quantization", "dtype"), [("int8_float16", "<f2"), ("int8_float32", "<f4")])
def test_int8_is_undone_to_half_a_step(tmp_path: Path, quantization: str, dtype: str) -> None:
    given = whisper(tmp_path / "ct2", quantization=quantization)
    convert.ctranslate2_to_mlx(tmp_path / "ct2", tmp_path / "mlx")
    found = tensors(tmp_path / "mlx")
    assert {values.dtype.str for values in found.values()} == {dtype}
    fused = given["decoder/layer_1/self_attention/linear_0/weight"]
    for name, was in (
        ("decoder.blocks.1.attn.value.weight", fused[2 * STATE :]),
        ("decoder.token_embedding.weight", given["decoder/embeddings/weight"]),
        ("encoder.conv1.weight", given["encoder/conv1/weight"].transpose(0, 2, 1)),
    ):
        step = np.abs(was).max(axis=tuple(range(1, was.ndim)), keepdims=True) / 127
        assert (np.abs(found[name] - was) <= step * 0.51 + 2e-3).all(), name


def test_what_was_quantised_otherwise_is_refused(tmp_path: Path) -> None:
    whisper(tmp_path / "ct2", quantization="int16")
    refuses(tmp_path / "ct2", "quantised in a way that cannot be undone")


@pytest.mark.parametrize("kept", [0, 3, 30, 1000, 16_000_000, -1])
def test_a_truncated_model_is_refused(tmp_path: Path, kept: int) -> None:
    source = copy(tmp_path)
    content = (source / "model.bin").read_bytes()
    (source / "model.bin").write_bytes(content[:kept])
    refuses(source, "ends early; fetch it again")


@pytest.mark.parametrize("content", [b"no weights", b"PK\x03\x04" + bytes(1000), struct.pack("<IH4s", 6, 4, b"GPT\0")])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    source = copy(tmp_path)
    (source / "model.bin").write_bytes(content)
    refuses(source, "is not a Whisper model")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    refuses(tmp_path, "holds no model.bin")


def test_a_type_that_numpy_lacks_is_refused(tmp_path: Path) -> None:
    source = copy(tmp_path)
    content = (source / "model.bin").read_bytes()
    name = b"encoder/conv1/bias\0\x01" + struct.pack("<I", 128)
    assert content.count(name + b"\x04") == 1
    (source / "model.bin").write_bytes(content.replace(name + b"\x04", name + b"\x05"))
    refuses(source, "as bfloat16 is")


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    source = copy(tmp_path)
    content = (source / "model.bin").read_bytes()
    (source / "model.bin").write_bytes(content.replace(b"encoder/conv2/bias", b"encoder/conv9/bias"))
    refuses(source, "holds no encoder/conv2/bias")


def test_an_output_of_its_own_is_refused(tmp_path: Path) -> None:
    """mlx-whisper would write the words of another model."""
    source = copy(tmp_path)
    content = (source / "model.bin").read_bytes()
    alias = struct.pack("<H", 26) + b"decoder/embeddings/weight\0"
    other = struct.pack("<H", 37) + b"decoder/position_encodings/encodings\0"
    assert content.endswith(alias)
    (source / "model.bin").write_bytes(content.removesuffix(alias) + other)
    refuses(source, "output has weights of its own")


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    """mlx-whisper would read its tokens with OpenAI's."""
    source = copy(tmp_path)
    tokens = json.loads((source / "vocabulary.json").read_text())
    (source / "vocabulary.json").write_text(json.dumps([*tokens[1:], tokens[0]]))
    refuses(source, "has a vocabulary of its own")
    (source / "vocabulary.json").unlink()
    refuses(source, "neither vocabulary.json nor vocabulary.txt")


def test_a_vocabulary_of_lines_will_do(tmp_path: Path) -> None:
    source = copy(tmp_path)
    tokens = json.loads((source / "vocabulary.json").read_text())
    (source / "vocabulary.json").unlink()
    (source / "vocabulary.txt").write_text("\n".join(tokens) + "\n")
    convert.ctranslate2_to_mlx(source, tmp_path / "whisper-nano")


@pytest.mark.parametrize("heads", [[[2, 0]], [[0, 2]], [[1]], [[-1, 0]], [["a", "b"]]])
def test_heads_that_the_model_does_not_have_are_refused(tmp_path: Path, heads: object) -> None:
    source = copy(tmp_path)
    (source / "config.json").write_text(json.dumps({"alignment_heads": heads}))
    refuses(source, "names alignment heads that the model does not have")


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_its_config_is_refused(tmp_path: Path, content: str | None) -> None:
    source = copy(tmp_path)
    (source / "config.json").unlink()
    if content is not None:
        (source / "config.json").write_text(content)
    refuses(source, re.escape(str(source / "config.json")))


def test_heads_that_nobody_named_are_left_to_mlx_whisper(tmp_path: Path) -> None:
    source = copy(tmp_path)
    (source / "config.json").write_text("{}")
    convert.ctranslate2_to_mlx(source, tmp_path / "whisper-nano")
    assert "alignment_heads" not in tensors(tmp_path / "whisper-nano")


def test_what_is_there_already_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "whisper-nano").mkdir()
    (tmp_path / "whisper-nano" / "mine").touch()
    with pytest.raises(convert.ConversionError, match="is there already"):
        convert.ctranslate2_to_mlx(MODEL, tmp_path / "whisper-nano")
    assert [path.name for path in (tmp_path / "whisper-nano").iterdir()] == ["mine"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert.os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        convert.ctranslate2_to_mlx(MODEL, tmp_path / "whisper-nano")
    assert list(tmp_path.iterdir()) == []


def test_the_draft_of_a_process_with_our_pid_in_another_container_stays(tmp_path: Path) -> None:
    draft = tmp_path / f".whisper-nano.{os.getpid()}.part"
    draft.mkdir()
    (draft / "weights.safetensors").touch()
    convert.ctranslate2_to_mlx(MODEL, tmp_path / "whisper-nano")
    assert [path.name for path in draft.iterdir()] == ["weights.safetensors"]


def copy(tmp_path: Path) -> Path:
    """The tests' model where it may be spoilt."""
    return Path(shutil.copytree(MODEL, tmp_path / "source"))


def refuses(source: Path, sentence: str) -> None:
    """Nothing appears, whole or in part, and somebody is told why."""
    target = source.parent / "models" / "whisper-x"
    with pytest.raises(convert.ConversionError, match=sentence):
        convert.ctranslate2_to_mlx(source, target)
    assert not target.parent.exists()


# ------------------------------------------------------------------ with MLX

# In a process of its own, as the engine is: with a fast BLAS where there is one.
PROGRAM = """
import json, sys
import mlx.core as mx, mlx_whisper, numpy as np
from mlx.utils import tree_flatten
from mlx_whisper import load_models, whisper
mx.set_default_device(mx.cpu)
model, sound = sys.argv[1:]
loaded = load_models.load_model(model)
fresh = whisper.Whisper(loaded.dims)
said = mlx_whisper.transcribe(
    np.load(sound), path_or_hf_repo=model, fp16=False, temperature=0.0, word_timestamps=True
)
print(json.dumps({
    "shapes": {name: values.shape for name, values in tree_flatten(fresh.parameters())},
    "heads": loaded.alignment_heads.tolist(),
    "language": said["language"],
    "tokens": [token for segment in said["segments"] for token in segment["tokens"]],
    "words": [
        [word["word"], float(word["start"]), float(word["end"]), float(word["probability"])]
        for segment in said["segments"] for word in segment["words"]
    ],
}))
"""


@pytest.fixture(scope="module")
def sound() -> Array:
    """Two sentences with a second of silence after each, as floats.  # (samples,)"""
    samples = []
    for name in ("mice.wav", "bears.wav"):
        with wave.open(str(NANO / "nano" / name)) as file:
            samples += [np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768, np.zeros(16000)]
    return np.concatenate(samples, dtype=np.float32)


@pytest.fixture(scope="module")
def in_mlx(mlx_models: Path, sound: Array, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What mlx-whisper makes of the converted model, and hears with it."""
    path = tmp_path_factory.mktemp("sound") / "sound.npy"
    np.save(path, sound)
    command = [sys.executable, "-c", PROGRAM, str(mlx_models / "whisper-nano"), str(path)]
    environment = {**os.environ, **devices._preloading(ENGINES["mlx-whisper"])}
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(json.loads(said.splitlines()[-1]))


@pytest.mark.needs("mlx-whisper")
def test_mlx_whisper_finds_every_parameter(in_mlx: dict[str, Any], mlx_models: Path) -> None:
    here = {name: list(values.shape) for name, values in tensors(mlx_models / "whisper-nano").items()}
    guessed = in_mlx["shapes"]
    assert (here.pop("alignment_heads"), guessed.pop("alignment_heads")) == ([1, 2], [2, 2])
    assert in_mlx["heads"] == [[1, 1]]
    assert guessed == here


@pytest.mark.needs("mlx-whisper")
def test_mlx_whisper_gives_the_words_and_times_of_faster_whisper(in_mlx: dict[str, Any], sound: Array) -> None:
    """Greedy and in float32 there is nothing that they do differently."""
    model = WhisperModel(str(MODEL), "cpu", compute_type="float32", local_files_only=True)
    found, about = model.transcribe(sound, beam_size=1, temperature=0.0, word_timestamps=True)
    segments = list(found)
    words = [word for segment in segments for word in segment.words or ()]
    assert in_mlx["language"] == about.language
    assert in_mlx["tokens"] == [token for segment in segments for token in segment.tokens]
    assert [word for word, *_ in in_mlx["words"]] == [word.word for word in words]
    assert len(words) > 8
    ours = [numbers for _, *numbers in in_mlx["words"]]
    np.testing.assert_allclose(ours, [(word.start, word.end, word.probability) for word in words], atol=0.021)
