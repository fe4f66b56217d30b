"""Packed training sequences hold exactly the tokens that the runtime's prompts have."""

import pytest

from gar_edge.models.nano import recipe
from gar_edge.models.nano.network import thumbnails
from gar_edge.models.nano.packing import NO_TARGET, Packer
from gar_edge.models.nano.samples import Batches, Mix, Sampler
from gar_edge.models.nano.tasks import Turn


@pytest.fixture(scope="module")
def packer():
    config = recipe.config()
    return Packer(recipe.tokenizer(), config.tile_tokens, config.image_token, list(config.replay_tokens))


def follow(packed, leaf):
    """Ids and positions of a leaf with its ancestors, in order."""
    sees = packed.sees()
    rows = [i for i, segment in enumerate(packed.segments) if sees[leaf, segment]]
    return [packed.ids[i] for i in rows], [packed.positions[i] for i in rows]


def test_leaves_read_like_whole_prompts(packer):
    turns = [
        Turn("describe", None, "A small plain red moon."),
        Turn("same_colour", "Do <Prompt0> and <Prompt3> have the same colour?", "yes"),
    ]
    for turn, numbers in zip(turns, ([1], [0, 3]), strict=True):
        packed = packer.pack(numbers, 5, [turn], 500)
        ids, positions = follow(packed, len(packed.parents) - 1)
        text = packer.tokenizer.decode(ids, skip_special_tokens=False)
        assert positions == list(range(len(ids)))
        assert text.count("<|begin_of_text|>") == 1
        assert text.count("<|image|>") == 5 * 16
        assert text.endswith(turn.answer + "<|eot_id|>")
        names = "; ".join(f"<Prompt{n}>" for n in numbers)
        assert f"<|image|>There are some objects I am curious about: {names};" in text
        assert turn.question is None or f"\n\n{turn.question}<|eot_id|>" in text


def test_only_answers_are_targets(packer):
    packed = packer.pack([1], 5, [Turn("colour", "What colour is <Prompt1>?", "red")], 500)
    targets = [target for target in packed.targets if target != NO_TARGET]
    assert packer.tokenizer.decode(targets, skip_special_tokens=False) == "red<|eot_id|>"
    assert len(packed.targets) == len(packed.weights) == len(packed.ids)


def test_limit_is_kept(packer):
    turns = [Turn("colour", "What colour is <Prompt1>?", "red")] * 40
    assert len(packer.pack([1], 5, turns, 250).ids) <= 250


def test_the_system_prompt_is_one_token(packer):
    assert len(packer.before) < 16


def test_batches_know_which_listed_region_is_meant(packer):
    config = recipe.config()
    sampler = Sampler(config, recipe.preprocessing(), packer.tokenizer)
    batch = Batches(sampler, 5, lambda step: Mix(8, 1.0, 500, pixels=False))[0]
    ids, segments = batch.ids.flatten(), batch.segments.flatten()
    length = batch.ids.shape[1]
    questions = {}
    for at, chosen in zip(batch.listed_at.tolist(), batch.listed_chosen.tolist(), strict=True):
        assert ids[at] in packer.names
        questions.setdefault((at // length, int(segments[at])), []).append(chosen)
    assert questions
    for (sample, segment), chosen in questions.items():
        assert batch.tasks[sample][segment] in ("which", "extreme")
        assert sum(chosen) == 1
        place = ("the first", "the second", "the third")[chosen.index(1)]
        where = (batch.segments[sample] == segment) & (batch.targets[sample] != NO_TARGET)
        assert packer.tokenizer.decode(batch.targets[sample][where].tolist()) == place


def test_thumbnails_come_first(packer):
    sampler = Sampler(recipe.config(), recipe.preprocessing(), packer.tokenizer)
    batch = Batches(sampler, 6, lambda step: Mix(4, 0.5, 400, pixels=False))[0]
    starts = [sum(batch.tiles[:i]) for i in range(4)]
    assert thumbnails(batch).nonzero()[:, 0].tolist() == starts
