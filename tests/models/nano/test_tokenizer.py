"""The tokenizer: released special tokens, lossless text, and the shipped file as the recipe makes it."""

import pytest

from gar_edge.models.nano import recipe, tokenizer, wording


@pytest.fixture(scope="module")
def shipped():
    return tokenizer.load(recipe.SHIPPED)


def test_special_tokens_stand_where_the_config_says(shipped):
    tokens = recipe.special_tokens()
    assert [shipped.id_to_token(tokens.first + i) for i in range(len(tokens.texts))] == tokens.texts
    assert shipped.get_vocab_size() == tokens.vocab == recipe.config().text.vocab


def test_text_survives(shipped):
    for text in (wording.SYSTEM, wording.DESCRIBE, "Größe: 12 µm? \n\n“odd” text", "What colour is it?\nA. red"):
        assert shipped.decode(shipped.encode(text, add_special_tokens=False).ids) == text


def test_recipe_gives_the_shipped_tokenizer(shipped):
    assert recipe.tokenizer().to_str() == shipped.to_str()
