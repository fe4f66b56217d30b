"""The training forward: packed sequences through the exported modules' own layers, and what helps them learn.

`Painter` knows the scene and paints the features an ideal encoder might give; the decoder learns from these first,
then the encoder learns to paint alike (`Trainee.align_loss`), then both learn together.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gar_edge.models.config import GarConfig
from gar_edge.models.llama import Decoder, DecoderLayer
from gar_edge.models.nano.samples import Batch
from gar_edge.models.nano.vocabulary import COLOURS, FILLS, SHAPES, SIZES
from gar_edge.models.replay import replay
from gar_edge.models.vision import Encoder

WORDS = (len(SHAPES), len(COLOURS), len(FILLS), len(SIZES))
THUMBNAIL_LAYER = 1  # behind how many decoder layers an image token should know whether it is the thumbnail's
NAME_LAYER, BOX_LAYER = 1, 2  # behind how many decoder layers the helpers read the replay tokens
BIND_WORDS, BIND_BOX = 2, 3  # and the regions' names in questions
LISTED_LAYER = 3  # and whether the named region is the one asked for
CELL_SHARE = 0.35  # how much of a cell a thing must cover for the cell to know its words
LETTER_LAYER = 3  # and where a letter is to be said


class Painter(nn.Module):
    """Ideal features from the ground truth: what lies in each token's cell, how much of it, and where in the tile."""

    def __init__(self, channels: int, tile_tokens: int) -> None:
        super().__init__()
        self.words = nn.ParameterList(nn.Parameter(torch.randn(count, channels) * 0.5) for count in WORDS)
        self.where = nn.Parameter(torch.randn(tile_tokens, channels) * 0.5)
        self.marked = nn.Parameter(torch.randn(channels) * 0.5)
        self.box = nn.Parameter(torch.randn(4, channels))

    def forward(self, batch: Batch) -> Tensor:
        """Features [N,P,C]."""
        kinds = [table[batch.things[..., i]] for i, table in enumerate(self.words)]  # [B,6,C] each
        thing = torch.stack(kinds).sum(dim=0)
        small = thing - kinds[-1]  # a thumbnail shows no true sizes
        owner = tile_owners(batch)
        of_tile = torch.where(thumbnails(batch)[:, None, None], small[owner], thing[owner])  # [N,6,C]
        return batch.cover @ of_tile + batch.masked[..., None] * self.marked + self.where

    def regions(self, batch: Batch) -> Tensor:
        """Features of whole regions [R,P,C], as if each filled its cells."""
        words = batch.things[batch.owner, batch.region_things]  # [R,4]
        thing = torch.stack([table[words[:, i]] for i, table in enumerate(self.words)]).sum(dim=0)
        return thing[:, None] + self.marked + self.where

    def hints(self, batch: Batch) -> Tensor:
        """Where each region lies in the image, [R,1,C]: what the decoder must later find out by itself."""
        return ((batch.boxes - 0.5) * 2 @ self.box)[:, None]


class Trainee(nn.Module):
    """Encoder, decoder and the helpers that are not shipped (`painter`, `box_head`)."""

    def __init__(self, config: GarConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config.text)
        self.painter = Painter(config.text.hidden, config.tile_tokens)
        self.box_head = nn.Linear(config.text.hidden, 4)
        self.name_head = nn.Linear(config.text.hidden, len(config.replay_tokens))
        self.bind_words = nn.Linear(config.text.hidden, sum(WORDS))
        self.bind_box = nn.Linear(config.text.hidden, 4)
        self.cell_words = nn.Linear(config.text.hidden, sum(WORDS))
        self.region_words = nn.Linear(config.text.hidden, sum(WORDS))
        self.thumbnail = nn.Linear(config.text.hidden, 1)
        self.listed = nn.Linear(config.text.hidden, 1)
        self.letter_word = nn.Linear(config.text.hidden, config.text.hidden)
        initialise(self.encoder, self.decoder)

    def encode(self, batch: Batch) -> Tensor:
        """Features [N,P,C] of the pictures."""
        pixels = batch.pixels.float().div_(127.5).sub_(1.0)
        return torch.as_tensor(self.encoder(pixels, batch.mask.float()))

    def replayed(self, features: Tensor, batch: Batch) -> Tensor:
        """Features of all regions, [R,P,C]."""
        per_sample = features.split(batch.tiles)
        counts = torch.bincount(batch.owner, minlength=len(batch.tiles)).tolist()
        boxes = batch.boxes.split(counts)
        scale = self.config.replay_spatial_scale
        return torch.cat(
            [replay(f, grid, box, scale) for f, grid, box in zip(per_sample, batch.grids, boxes, strict=True)]
        )

    def embed(self, features: Tensor, replayed: Tensor, batch: Batch) -> Tensor:
        """Input embeddings [B,S,C]."""
        x = self.decoder.head[batch.ids].flatten(0, 1)
        x = x.index_copy(0, batch.image_at, features.flatten(0, 1))
        x = x.index_copy(0, batch.replay_at, replayed.flatten(0, 1)[batch.replay_from])
        return x.view(*batch.ids.shape, -1)

    def decode(self, x: Tensor, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Final hidden states [B,S,C], and those behind each layer."""
        cos, sin = self.decoder.angles(batch.positions, x.dtype)
        bias = attention_bias(batch, x.dtype)
        behind = [x]
        for module in self.decoder.layers:
            layer = cast(DecoderLayer, module)
            query, key, value = layer.attn.project(layer.input_norm(x), cos, sin)
            x = x + layer.attn.output(attend(query, key, value, bias))
            x = layer.feed_forward(x)
            behind.append(x)
        return self.decoder.norm(x), behind

    def losses(self, features: Tensor, replayed: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Losses of answers, of boxes, and of names and letters' words; per-target hits [n] of the likeliest token."""
        hidden, behind = self.decode(self.embed(features, replayed, batch), batch)
        at = batch.weights > 0
        logits = hidden[at] @ self.decoder.head.T
        targets, weights = batch.targets[at], batch.weights[at]
        answer = (F.cross_entropy(logits, targets, reduction="none") * weights).sum() / weights.sum()
        region = batch.replay_from // self.config.tile_tokens
        box = _box_loss(self.box_head(behind[BOX_LAYER].flatten(0, 1)[batch.replay_at]), batch.boxes[region])
        named = self.name_head(behind[NAME_LAYER].flatten(0, 1)[batch.replay_at])
        names = F.cross_entropy(named, batch.numbers[region]) + self._bind_loss(behind, batch)
        if len(batch.image_at):
            known = self.thumbnail(behind[THUMBNAIL_LAYER].flatten(0, 1)[batch.image_at])[:, 0]
            of_tile = thumbnails(batch).to(known.dtype).repeat_interleave(self.config.tile_tokens)
            names = names + F.binary_cross_entropy_with_logits(known, of_tile)
        if len(batch.listed_at):
            chosen = self.listed(behind[LISTED_LAYER].flatten(0, 1)[batch.listed_at])[:, 0]
            names = names + F.binary_cross_entropy_with_logits(chosen, batch.listed_chosen)
        if len(batch.letter_at):
            said = self.letter_word(behind[LETTER_LAYER].flatten(0, 1)[batch.letter_at]) @ self.decoder.head.detach().T
            names = names + F.cross_entropy(said, batch.letter_word)
        return answer, box, names, logits.detach().argmax(-1) == targets

    def align_loss(self, features: Tensor, replayed: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """How far features are from the painted ones, relative to their spread, and how little they tell.

        Cells that things cover count more; a cell is asked for the words of the thing that covers most of it, and the
        mean of a region's replayed features for the region's words.
        """
        painted = self.painter(batch).detach()
        share, thing = batch.cover.max(dim=-1)  # [N,P]
        weight = 0.1 + share[..., None]
        centred = painted - painted.mean(dim=(0, 1))
        distance = (weight * (features - painted) ** 2).sum() / (weight * centred**2).sum()
        owner = tile_owners(batch)
        at = share > CELL_SHARE
        words = batch.things[owner][:, None].expand(-1, share.shape[1], -1, -1)  # [N,P,6,4]
        words = words.gather(2, thing[..., None, None].expand(-1, -1, 1, len(WORDS)))[:, :, 0][at]
        told = _words_loss(self.cell_words(features[at]), words)
        regions = batch.things[batch.owner, batch.region_things]
        return distance, told + _words_loss(self.region_words(replayed.mean(dim=1)), regions)

    def _bind_loss(self, behind: list[Tensor], batch: Batch) -> Tensor:
        """A region's name in a question should know the region: its box and its words."""
        if not len(batch.named_at):
            return behind[0].new_zeros(())
        words = self.bind_words(behind[BIND_WORDS].flatten(0, 1)[batch.named_at])
        box = self.bind_box(behind[BIND_BOX].flatten(0, 1)[batch.named_at])
        things = batch.things[batch.owner, batch.region_things][batch.named_region]
        return _words_loss(words, things) / len(WORDS) + _box_loss(box, batch.boxes[batch.named_region])


def tile_owners(batch: Batch) -> Tensor:
    """[N]: the sample that each tile belongs to."""
    return torch.repeat_interleave(torch.arange(len(batch.tiles)), torch.tensor(batch.tiles)).to(batch.ids.device)


def thumbnails(batch: Batch) -> Tensor:
    """[N] bool: whether a tile is its sample's thumbnail, which comes first."""
    owner = tile_owners(batch)
    first = torch.ones_like(owner, dtype=torch.bool)
    first[1:] = owner[1:] != owner[:-1]
    return first


def _words_loss(logits: Tensor, things: Tensor) -> Tensor:
    """Cross entropies of shape, colour, fill and size, added: logits [n,23], things [n,4]."""
    parts = [F.cross_entropy(part, things[:, i]) for i, part in enumerate(logits.split(WORDS, dim=1))]
    return torch.stack(parts).sum()


def _box_loss(predicted: Tensor, box: Tensor) -> Tensor:
    return F.smooth_l1_loss(predicted, box, beta=0.05)


def attention_bias(batch: Batch, dtype: torch.dtype) -> Tensor:
    """[B,1,S,S]: zero where a token may look (its own segment and its ancestors, not ahead), else very low."""
    count = batch.sees.shape[-1]
    rows = batch.sees.gather(1, batch.segments[..., None].expand(-1, -1, count))  # [B,S,G]
    seen = rows.gather(2, batch.segments[:, None, :].expand(-1, rows.shape[1], -1))
    causal = batch.positions[:, None, :] <= batch.positions[:, :, None]
    return torch.where(seen & causal, 0.0, torch.finfo(dtype).min).to(dtype)[:, None]


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Grouped-query attention [B,H,S,d], as `ops.attention`; the groups repeated, which CPUs like better."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def initialise(encoder: Encoder, decoder: Decoder) -> None:
    """Fresh weights: linears ~ N(0, 1/sqrt(inputs)), those that end a residual branch 0, norms 1, biases 0.

    The token table starts as large as the features, so that words are not drowned by them; the last norm makes up
    for it at the head, which is the same table.
    """
    for module in (encoder, decoder):
        for name, parameter in module.named_parameters():
            with torch.no_grad():
                if name.endswith("bias") or _ends_branch(name):
                    parameter.zero_()
                elif name == "norm.weight":
                    parameter.fill_(0.1)
                elif "norm" in name:
                    parameter.fill_(1.0)
                elif name in ("patch.weight", "mask_patch.weight"):  # of three channels and one
                    parameter.normal_(0, (4 * parameter[0, 0].numel()) ** -0.5)
                elif name == "head":
                    parameter.normal_(0, 0.4)
                elif parameter.ndim == 2:
                    parameter.normal_(0, parameter.shape[0] ** -0.5)
                else:  # positions, class token
                    parameter.normal_(0, 0.3)


def _ends_branch(name: str) -> bool:
    return any(part in name for part in ("attn.proj.", "fc2.", "o_proj.", "down_proj."))
