"""gar-nano's own dimensions, tokenizer and sampler, put together."""

from __future__ import annotations

from tokenizers import Tokenizer

from gar_edge.models.checkpoint import shipped_checkpoint
from gar_edge.models.config import GarConfig, Preprocessing, parse_config, parse_preprocessing
from gar_edge.models.nano import tokenizer as words
from gar_edge.models.sizes import Preset, Size, SpecialTokens

SHIPPED = shipped_checkpoint(Size.NANO)
"""The checkpoint that comes with the package."""


def chat_template() -> str:
    """The chat template that the shipped checkpoint holds."""
    return (SHIPPED / "chat_template.jinja").read_text(encoding="utf-8")


def preset() -> Preset:
    return Size.NANO.preset


def config() -> GarConfig:
    """The dimensions that the shipped config.json holds."""
    return parse_config(preset().config())


def preprocessing() -> Preprocessing:
    return parse_preprocessing(preset().preprocessor_config())


def special_tokens() -> SpecialTokens:
    return SpecialTokens(preset().first_special_token)


def tokenizer() -> Tokenizer:
    """The tokenizer that the shipped tokenizer.json holds, learnt anew (it takes a moment)."""
    tokens = special_tokens()
    return words.build(tokens.texts, tokens.first)
