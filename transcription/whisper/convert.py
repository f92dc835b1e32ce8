"""Converts a Whisper folder from CTranslate2 to mlx-whisper with numpy alone: the same weights under other names.

CTranslate2's model.bin, format 6 (`ModelSpec._serialize` in ctranslate2/specs/model_spec.py). Numbers are
little-endian and have 32 bits unless noted. A string is its length (16 bits, with the closing zero), its bytes and a
zero.

    6, the specification's name, its revision, the number of variables; for each variable
        name, rank (8 bits), each dimension, type (8 bits), the number of bytes, the bytes
    the number of aliases; for each alias its name and the name of its variable

safetensors: the length of the header (64 bits), the header (JSON: type, shape and offsets of each tensor), the tensors.

The names on mlx-whisper's side are those of mlx_whisper/whisper.py, which follow openai-whisper's.
"""

import itertools
import json
import math
import os
import secrets
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

FORMAT, SPECIFICATION = 6, "WhisperSpec"
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}  # by model.bin's numbers; 5 is bfloat16, which numpy lacks
SAFETENSORS_TYPES = {"<f4": "F32", "<f2": "F16", "<i4": "I32"}

# The projections in each linear layer of an attention; each has an equal share of the layer's rows.
SELF_ATTENTION = (("query", "key", "value"), ("out",))
CROSS_ATTENTION = (("query",), ("key", "value"), ("out",))

Json = TypeVar("Json")

AGAIN = "Convert the original weights again with ct2-transformers-converter --quantization float16."


class ConversionError(ValueError):
    """The sentence why a folder cannot be converted. Trying again does not help."""


def ctranslate2_to_mlx(source: Path, target: Path) -> None:
    """Write the folder `target` for mlx-whisper from `source`, a folder for CTranslate2.

    `target` appears whole or not at all. Floats keep their type, float16 or float32; int8 becomes the type of the rest.
    One tensor at a time is in memory, a few hundred megabytes at most; the disk sets the pace.

    Raises ConversionError; OSError when the disk is full or `target` may not be written.
    """
    if target.exists():
        raise ConversionError(f"{target} is there already; move it away.")
    variables = read_contents(source / "model.bin")
    dimensions = _dimensions(variables)
    _check_vocabulary(source, dimensions["n_vocab"])
    tensors = [*_alignment_heads(source, dimensions), *_tensors(variables, dimensions)]
    # Not the PID: containers that share a folder have the same ones.
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        draft.mkdir(parents=True)
        (draft / "config.json").write_text(json.dumps({"model_type": "whisper", **dimensions}, indent=2) + "\n")
        write_safetensors(draft / "weights.safetensors", tensors)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@dataclass(frozen=True)
class Variable:
    """A variable of model.bin. Its values stay on disk until they are read."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def read(self) -> NDArray[Any]:
        """The values, mapped from the file: the system can take their memory back at any time."""
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


class Contents(dict[str, Variable]):
    """The variables of a model.bin, by their names and aliases."""

    def __missing__(self, name: str) -> Variable:
        raise ConversionError(f"model.bin holds no {name}; it is not a whole Whisper model.")


def read_contents(path: Path) -> Contents:
    """Read the table of a model.bin; the values stay on disk. Raises ConversionError."""
    try:
        with path.open("rb") as file:
            return _read_contents(path, file)
    except FileNotFoundError as error:
        raise ConversionError(f"{path.parent} holds no model.bin; it is not a model of CTranslate2.") from error
    except struct.error as error:
        raise ConversionError(f"{path} ends early; fetch it again.") from error


def _read_contents(path: Path, file: BinaryIO) -> Contents:
    if _read_number(file, "I") != FORMAT or _read_string(file) != SPECIFICATION:
        raise ConversionError(f"{path} is not a Whisper model in CTranslate2's format {FORMAT}.")
    _read_number(file, "I")  # the specification's revision; names and shapes are enough
    contents = Contents()
    for _ in range(_read_number(file, "I")):
        name = _read_string(file)
        shape = tuple(_read_number(file, "I") for _ in range(_read_number(file, "B")))
        type_number, size = _read_number(file, "B"), _read_number(file, "I")
        if type_number not in TYPES:
            raise ConversionError(f"{path} is stored in a type that cannot be converted, as bfloat16 is. {AGAIN}")
        dtype = TYPES[type_number]
        contents[name] = Variable(path, dtype, shape, file.tell())
        if size != math.prod(shape) * np.dtype(dtype).itemsize:
            raise ConversionError(f"{path} is damaged: {name} has another size than its shape. Fetch it again.")
        file.seek(size, os.SEEK_CUR)  # may go past the end; then the number of aliases cannot be read
    for _ in range(_read_number(file, "I")):
        alias = _read_string(file)
        contents[alias] = contents[_read_string(file)]
    return contents


def _read_number(file: BinaryIO, code: str) -> int:
    return int(_unpack(file, code))


def _read_string(file: BinaryIO) -> str:
    return bytes(_unpack(file, f"{_read_number(file, 'H')}s")).removesuffix(b"\0").decode(errors="replace")


def _unpack(file: BinaryIO, code: str) -> Any:
    """The next value of a file, `code` as in struct. Raises struct.error at its end."""
    (value,) = struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))
    return value


def _dimensions(variables: Contents) -> dict[str, int]:
    """mlx-whisper's ModelDimensions."""
    _, n_mels, _ = variables["encoder/conv1/weight"].shape  # (state, mels, 3)
    n_audio_ctx, n_audio_state = variables["encoder/position_encodings/encodings"].shape  # (1500, state)
    n_text_ctx, n_text_state = variables["decoder/position_encodings/encodings"].shape  # (448, state)
    return {
        "n_mels": n_mels,
        "n_audio_ctx": n_audio_ctx,
        "n_audio_state": n_audio_state,
        "n_audio_head": int(variables["encoder/num_heads"].read()),
        "n_audio_layer": _count_layers(variables, "encoder"),
        "n_vocab": variables["decoder/embeddings/weight"].shape[0],  # (tokens, state)
        "n_text_ctx": n_text_ctx,
        "n_text_state": n_text_state,
        "n_text_head": int(variables["decoder/num_heads"].read()),
        "n_text_layer": _count_layers(variables, "decoder"),
    }


def _count_layers(variables: Contents, side: str) -> int:
    return next(layer for layer in itertools.count() if f"{side}/layer_{layer}/ffn/linear_0/weight" not in variables)


def _check_vocabulary(source: Path, n_vocab: int) -> None:
    """Raise ConversionError unless the tokens have the numbers that mlx-whisper gives them.

    mlx-whisper brings its own tokenizer and chooses it by the number of tokens alone (`get_tokenizer` in
    mlx_whisper/tokenizer.py), so with another vocabulary it would write other words.
    """
    is_multilingual = n_vocab >= 51865
    languages = min(n_vocab - 51765 - is_multilingual, 100)
    end = 50256 + is_multilingual
    expected = {end: "<|endoftext|>", end + languages + 3: "<|transcribe|>", end + languages + 7: "<|notimestamps|>"}
    tokens = _read_vocabulary(source)
    if any(tokens[number : number + 1] != [token] for number, token in expected.items()):
        raise ConversionError(f"{source} has a vocabulary of its own; mlx-whisper reads OpenAI's alone.")


def _read_vocabulary(source: Path) -> list[str]:
    """The tokens in the order of their numbers."""
    if (path := source / "vocabulary.json").exists():
        return _read_json(path, list)
    if (path := source / "vocabulary.txt").exists():
        return path.read_text(encoding="utf-8").split("\n")
    raise ConversionError(f"{source} holds neither vocabulary.json nor vocabulary.txt.")


def _read_json(path: Path, expected: type[Json]) -> Json:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise ConversionError(f"{path} is missing or no JSON.") from error
    if not isinstance(content, expected):
        raise ConversionError(f"{path} is not what CTranslate2 writes.")
    return content


@dataclass(frozen=True)
class Tensor:
    """A tensor of a safetensors file. `read` gives its values when they are written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]


def _alignment_heads(source: Path, dimensions: dict[str, int]) -> Iterator[Tensor]:
    """The decoder's heads that follow the speech, for the times of words. Without them mlx-whisper guesses."""
    pairs = _read_json(source / "config.json", dict).get("alignment_heads")
    if not pairs:
        return
    layers, heads_a_layer = range(dimensions["n_text_layer"]), range(dimensions["n_text_head"])
    if not all(pair in [[layer, head] for layer in layers for head in heads_a_layer] for pair in pairs):
        raise ConversionError(f"{source / 'config.json'} names alignment heads that the model does not have.")
    heads = np.array(pairs, "<i4")  # (heads, 2): layer, head
    yield Tensor("alignment_heads", "<i4", heads.shape, lambda: heads)


def _tensors(variables: Contents, dimensions: dict[str, int]) -> Iterator[Tensor]:
    """The tensors of mlx-whisper's model. It computes the encoder's positions, which are sinusoids."""
    if variables["decoder/projection/weight"] != variables["decoder/embeddings/weight"]:
        raise ConversionError("The model's output has weights of its own; mlx-whisper shares those of its embeddings.")
    for convolution in ("conv1", "conv2"):
        yield from _layer(variables, f"encoder.{convolution}", f"encoder/{convolution}")
    for layer in range(dimensions["n_audio_layer"]):
        yield from _block(variables, f"encoder.blocks.{layer}", f"encoder/layer_{layer}")
    yield from _norm(variables, "encoder.ln_post", "encoder/layer_norm")
    yield _tensor(variables, "decoder.token_embedding.weight", "decoder/embeddings/weight")
    yield _tensor(variables, "decoder.positional_embedding", "decoder/position_encodings/encodings")
    for layer in range(dimensions["n_text_layer"]):
        yield from _block(variables, f"decoder.blocks.{layer}", f"decoder/layer_{layer}")
        name, source = f"decoder.blocks.{layer}.cross_attn", f"decoder/layer_{layer}/attention"
        yield from _attention(variables, name, source, CROSS_ATTENTION)
    yield from _norm(variables, "decoder.ln", "decoder/layer_norm")


def _block(variables: Contents, block: str, layer: str) -> Iterator[Tensor]:
    yield from _attention(variables, f"{block}.attn", f"{layer}/self_attention", SELF_ATTENTION)
    yield from _norm(variables, f"{block}.mlp_ln", f"{layer}/ffn/layer_norm")
    yield from _layer(variables, f"{block}.mlp1", f"{layer}/ffn/linear_0")
    yield from _layer(variables, f"{block}.mlp2", f"{layer}/ffn/linear_1")


def _attention(variables: Contents, name: str, source: str, linears: tuple[tuple[str, ...], ...]) -> Iterator[Tensor]:
    yield from _norm(variables, f"{name}_ln", f"{source}/layer_norm")
    for number, projections in enumerate(linears):
        fused = f"{source}/linear_{number}"
        for index, projection in enumerate(projections):
            yield _tensor(variables, f"{name}.{projection}.weight", f"{fused}/weight", index, len(projections))
            if projection != "key":  # its bias is zero here, and MLX has none
                yield _tensor(variables, f"{name}.{projection}.bias", f"{fused}/bias", index, len(projections))


def _layer(variables: Contents, name: str, source: str) -> Iterator[Tensor]:
    yield _tensor(variables, f"{name}.weight", f"{source}/weight")
    yield _tensor(variables, f"{name}.bias", f"{source}/bias")


def _norm(variables: Contents, name: str, source: str) -> Iterator[Tensor]:
    yield _tensor(variables, f"{name}.weight", f"{source}/gamma")
    yield _tensor(variables, f"{name}.bias", f"{source}/beta")


def _tensor(variables: Contents, name: str, source: str, index: int = 0, parts: int = 1) -> Tensor:
    """Part number `index` of `parts` equal parts of a variable's rows."""
    variable, scale = variables[source], variables.get(f"{source}_scale")
    if variable.dtype not in ("<f4", "<f2") and (variable.dtype != "<i1" or scale is None):
        raise ConversionError(f"{variable.path} is quantised in a way that cannot be undone. {AGAIN}")
    dtype = variables["decoder/layer_norm/gamma"].dtype  # never quantised, so it has the type of the whole model
    count, *axes = variable.shape
    shape = (count // parts, *reversed(axes))  # MLX exchanges the last two axes of a convolution
    rows = slice(index * shape[0], (index + 1) * shape[0])
    return Tensor(name, dtype, shape, partial(_read_rows, variable, scale, rows, dtype))


def _read_rows(variable: Variable, scale: Variable | None, rows: slice, dtype: str) -> NDArray[Any]:
    """Rows of a variable, without its quantisation."""
    values = variable.read()[rows]  # (rows,) or (rows, columns) or (rows, channels, 3)
    if scale is not None:  # (rows,): each row was multiplied by its scale, then rounded to int8
        values = (values.T / scale.read()[rows]).T
    if values.ndim == 3:
        values = values.swapaxes(1, 2)  # (rows, 3, channels)
    return np.ascontiguousarray(values, dtype)


def write_safetensors(path: Path, tensors: list[Tensor]) -> None:
    """Write tensors in the order given. The widest types must come first, so that all are aligned."""
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
        dtype = SAFETENSORS_TYPES[tensor.dtype]
        header[tensor.name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": (start, end)}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for tensor in tensors:
            file.write(tensor.read().data)
        file.flush()
        os.fsync(file.fileno())  # the folder must not get its name before its bytes are on disk
