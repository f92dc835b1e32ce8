"""A Whisper folder of CTranslate2 made into one of mlx-whisper, with numpy alone: the same weights under other names.

CTranslate2's model.bin, format 6 (its `ModelSpec._serialize`), all little-endian, a string being its length (16 bits,
the closing zero counted), its bytes and a zero:

    6, specification's name, revision, how many variables; then for each of them
        name, rank (8 bits), each dimension, type (8 bits), how many bytes, the bytes
    how many aliases; then for each of them its name and that of the variable it stands for

safetensors: the header's length (64 bits), the header (JSON: for each tensor its type, shape and place), the tensors.
"""

import itertools
import json
import math
import os
import secrets
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

FORMAT, SPECIFICATION = 6, "WhisperSpec"
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}  # model.bin's numbers; 5 is bfloat16, which numpy lacks
SAFETENSORS = {"<f4": "F32", "<f2": "F16", "<i4": "I32"}

# What the linear layers of an attention hold, each part a stretch of the layer's rows.
SELF_ATTENTION = (("query", "key", "value"), ("out",))
CROSS_ATTENTION = (("query",), ("key", "value"), ("out",))

Kind = TypeVar("Kind")

AGAIN = "Convert the original weights again with ct2-transformers-converter --quantization float16."


class ConversionError(ValueError):
    """This folder cannot be converted, nor will it be by trying again. Says why."""


def ctranslate2_to_mlx(source: Path, target: Path) -> None:
    """Write `target`, a folder that mlx-whisper loads, from `source`, one that CTranslate2 does.

    `target` appears whole or not at all. Floats keep their type, float16 or float32; int8 becomes the type of the rest.
    Goes tensor by tensor: a few hundred megabytes of memory at most and no more than the disk's time.

    Raises ConversionError; OSError when the disk is full or `target` may not be written.
    """
    if target.exists():
        raise ConversionError(f"{target} is there already; move it away.")
    variables = read_contents(source / "model.bin")
    dimensions = _dimensions(variables)
    _check_vocabulary(source, dimensions["n_vocab"])
    tensors = [*_alignment_heads(source, dimensions), *_tensors(variables, dimensions)]
    with _draft(target) as draft:
        (draft / "config.json").write_text(json.dumps({"model_type": "whisper", **dimensions}, indent=2) + "\n")
        write_safetensors(draft / "weights.safetensors", tensors)
        draft.rename(target)


@dataclass(frozen=True)
class Variable:
    """A variable of model.bin; its values stay on disk until they are read."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def read(self) -> NDArray[Any]:
        """The values, mapped: they take no memory that the system cannot have back."""
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


class Contents(dict[str, Variable]):
    """The variables of a model.bin, by their names and aliases."""

    def __missing__(self, name: str) -> Variable:
        raise ConversionError(f"model.bin holds no {name}; it is not a whole Whisper model.")


def read_contents(path: Path) -> Contents:
    """What is in a model.bin. Raises ConversionError."""
    try:
        with path.open("rb") as file:
            return _read_contents(path, file)
    except FileNotFoundError as error:
        raise ConversionError(f"{path.parent} holds no model.bin; it is not a model of CTranslate2.") from error
    except struct.error as error:
        raise ConversionError(f"{path} ends early; fetch it again.") from error


def _read_contents(path: Path, file: BinaryIO) -> Contents:
    if _number(file, "I") != FORMAT or _string(file) != SPECIFICATION:
        raise ConversionError(f"{path} is not a Whisper model in CTranslate2's format {FORMAT}.")
    _number(file, "I")  # the specification's revision: names and shapes say all that we need of it
    contents = Contents()
    for _ in range(_number(file, "I")):
        name = _string(file)
        shape = tuple(_number(file, "I") for _ in range(_number(file, "B")))
        kind, size = _number(file, "B"), _number(file, "I")
        if kind not in TYPES:
            raise ConversionError(f"{path} is stored in a type that cannot be converted, as bfloat16 is. {AGAIN}")
        contents[name] = Variable(path, TYPES[kind], shape, file.tell())
        if size != math.prod(shape) * np.dtype(TYPES[kind]).itemsize:
            raise ConversionError(f"{path} is damaged: {name} has another size than its shape. Fetch it again.")
        file.seek(size, os.SEEK_CUR)  # past the end too; the count of the aliases is then missing
    for _ in range(_number(file, "I")):
        alias = _string(file)
        contents[alias] = contents[_string(file)]
    return contents


def _number(file: BinaryIO, kind: str) -> int:
    return int(_next(file, kind))


def _string(file: BinaryIO) -> str:
    return bytes(_next(file, f"{_number(file, 'H')}s")).removesuffix(b"\0").decode(errors="replace")


def _next(file: BinaryIO, kind: str) -> Any:
    """The next value of a file, `kind` as in struct. Raises struct.error at its end."""
    (value,) = struct.unpack(f"<{kind}", file.read(struct.calcsize(f"<{kind}")))
    return value


def _dimensions(variables: Contents) -> dict[str, int]:
    """mlx-whisper's ModelDimensions."""
    _, n_mels, _ = variables["encoder/conv1/weight"].shape  # (state, mels, 3)
    n_audio_ctx, n_audio_state = variables["encoder/position_encodings/encodings"].shape
    n_text_ctx, n_text_state = variables["decoder/position_encodings/encodings"].shape
    return {
        "n_mels": n_mels,
        "n_audio_ctx": n_audio_ctx,
        "n_audio_state": n_audio_state,
        "n_audio_head": int(variables["encoder/num_heads"].read()),
        "n_audio_layer": _layers(variables, "encoder"),
        "n_vocab": variables["decoder/embeddings/weight"].shape[0],
        "n_text_ctx": n_text_ctx,
        "n_text_state": n_text_state,
        "n_text_head": int(variables["decoder/num_heads"].read()),
        "n_text_layer": _layers(variables, "decoder"),
    }


def _layers(variables: Contents, side: str) -> int:
    return next(layer for layer in itertools.count() if f"{side}/layer_{layer}/ffn/linear_0/weight" not in variables)


def _check_vocabulary(source: Path, n_vocab: int) -> None:
    """Raise ConversionError unless the tokens have the numbers that mlx-whisper gives them.

    It brings its own tokenizer and goes by the number of tokens alone, so another vocabulary would give other words.
    """
    is_multilingual = n_vocab >= 51865
    languages = min(n_vocab - 51765 - is_multilingual, 100)
    end = 50256 + is_multilingual
    expected = {end: "<|endoftext|>", end + languages + 3: "<|transcribe|>", end + languages + 7: "<|notimestamps|>"}
    tokens = _vocabulary(source)
    if any(tokens[number : number + 1] != [token] for number, token in expected.items()):
        raise ConversionError(f"{source} has a vocabulary of its own; mlx-whisper reads OpenAI's alone.")


def _vocabulary(source: Path) -> list[str]:
    """Tokens by their numbers."""
    if (path := source / "vocabulary.json").exists():
        return _json(path, list)
    if (path := source / "vocabulary.txt").exists():
        return path.read_text(encoding="utf-8").split("\n")
    raise ConversionError(f"{source} holds neither vocabulary.json nor vocabulary.txt.")


def _json(path: Path, kind: type[Kind]) -> Kind:
    """What a file holds, a `kind` of JSON."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise ConversionError(f"{path} is missing or no JSON.") from error
    if not isinstance(found, kind):
        raise ConversionError(f"{path} is not what CTranslate2 writes.")
    return found


@dataclass(frozen=True)
class Tensor:
    """A tensor of a safetensors file; `read` gives its values when it is their turn to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]


def _alignment_heads(source: Path, dimensions: dict[str, int]) -> Iterator[Tensor]:
    """The heads that follow the sound, for the times of words; mlx-whisper has a guess where none are named."""
    listed = _json(source / "config.json", dict).get("alignment_heads")
    if not listed:
        return
    every = [[layer, head] for layer in range(dimensions["n_text_layer"]) for head in range(dimensions["n_text_head"])]
    if not all(pair in every for pair in listed):
        raise ConversionError(f"{source / 'config.json'} names alignment heads that the model does not have.")
    heads = np.array(listed, "<i4")  # (heads, 2): layer, head
    yield Tensor("alignment_heads", "<i4", heads.shape, lambda: heads)


def _tensors(variables: Contents, dimensions: dict[str, int]) -> Iterator[Tensor]:
    """What mlx-whisper's model reads of its weights. The encoder's positions are sinusoids that it computes."""
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
        cross = f"decoder.blocks.{layer}.cross_attn", f"decoder/layer_{layer}/attention"
        yield from _attention(variables, *cross, CROSS_ATTENTION)
    yield from _norm(variables, "decoder.ln", "decoder/layer_norm")


def _block(variables: Contents, block: str, layer: str) -> Iterator[Tensor]:
    yield from _attention(variables, f"{block}.attn", f"{layer}/self_attention", SELF_ATTENTION)
    yield from _norm(variables, f"{block}.mlp_ln", f"{layer}/ffn/layer_norm")
    yield from _layer(variables, f"{block}.mlp1", f"{layer}/ffn/linear_0")
    yield from _layer(variables, f"{block}.mlp2", f"{layer}/ffn/linear_1")


def _attention(variables: Contents, name: str, source: str, linears: tuple[tuple[str, ...], ...]) -> Iterator[Tensor]:
    yield from _norm(variables, f"{name}_ln", f"{source}/layer_norm")
    for number, parts in enumerate(linears):
        for place, part in enumerate(parts):
            fused = f"{source}/linear_{number}"
            yield _tensor(variables, f"{name}.{part}.weight", f"{fused}/weight", place, len(parts))
            if part != "key":  # whose bias is zero, and MLX has none
                yield _tensor(variables, f"{name}.{part}.bias", f"{fused}/bias", place, len(parts))


def _layer(variables: Contents, name: str, source: str) -> Iterator[Tensor]:
    yield _tensor(variables, f"{name}.weight", f"{source}/weight")
    yield _tensor(variables, f"{name}.bias", f"{source}/bias")


def _norm(variables: Contents, name: str, source: str) -> Iterator[Tensor]:
    yield _tensor(variables, f"{name}.weight", f"{source}/gamma")
    yield _tensor(variables, f"{name}.bias", f"{source}/beta")


def _tensor(variables: Contents, name: str, source: str, place: int = 0, parts: int = 1) -> Tensor:
    """The `place`-th of `parts` equal stretches of a variable's rows."""
    variable, scale = variables[source], variables.get(f"{source}_scale")
    if variable.dtype not in ("<f4", "<f2") and (variable.dtype != "<i1" or scale is None):
        raise ConversionError(f"{variable.path} is quantised in a way that cannot be undone. {AGAIN}")
    dtype = variables["decoder/layer_norm/gamma"].dtype  # never quantised: what the rest of the model is stored in
    rows, *axes = variable.shape
    shape = (rows // parts, *reversed(axes))  # of a convolution MLX has the last two axes exchanged
    stretch = slice(place * shape[0], (place + 1) * shape[0])
    return Tensor(name, dtype, shape, partial(_values, variable, scale, stretch, dtype))


def _values(variable: Variable, scale: Variable | None, stretch: slice, dtype: str) -> NDArray[Any]:
    values = variable.read()[stretch]  # (rows,) or (rows, columns) or (rows, channels, 3)
    if scale is not None:
        values = (values.T / scale.read()[stretch]).T  # a row was multiplied by its scale, then rounded
    if values.ndim == 3:
        values = values.swapaxes(1, 2)  # (rows, 3, channels)
    return np.ascontiguousarray(values, dtype)


def write_safetensors(path: Path, tensors: list[Tensor]) -> None:
    """Write tensors one after the other. The widest types come first, so that all are aligned."""
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
        place = {"dtype": SAFETENSORS[tensor.dtype], "shape": tensor.shape, "data_offsets": (start, end)}
        header[tensor.name] = place
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for tensor in tensors:
            file.write(tensor.read().data)
        file.flush()
        os.fsync(file.fileno())  # the folder must not be there before its bytes are


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder`, removed afterwards unless it was renamed."""
    # Not the PID: containers that share a folder have the same ones.
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.part")
    draft.mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
