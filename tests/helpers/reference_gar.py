"""GAR by the book, from pixels to tokens: torch, ONNX Runtime's RoiAlign and transformers.

Of the project's own code it takes the choice of the grid alone, and the checkpoint as a source of tensors.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from helpers import reference
from helpers.shapes import SHAPES
from tokenizers import Tokenizer

from gar_edge.models.checkpoint import Checkpoint
from gar_edge.runtime.images.tiling import choose_grid

SYSTEM = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, and assist the user with a variety of tasks "
    "using natural language.<|eot_id|>"
)


def resize(image: np.ndarray, width: int, height: int) -> torch.Tensor:
    """[H,W,C] -> rounded [C,height,width]."""
    x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    x = F.interpolate(x, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return x[0].round().clamp(0, 255)


def cut(image: np.ndarray, grid: tuple[int, int], tile: int) -> torch.Tensor:
    """[H,W,C] -> [T,C,tile,tile], the thumbnail first."""
    canvas = resize(image, grid[0] * tile, grid[1] * tile)
    tiles = [
        canvas[:, y * tile : (y + 1) * tile, x * tile : (x + 1) * tile] for y in range(grid[1]) for x in range(grid[0])
    ]
    return torch.stack([resize(image, tile, tile), *tiles])


class Reference:
    """GAR by the book."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config = SHAPES[checkpoint.name].config()
        self.checkpoint = checkpoint
        self.get = checkpoint.weights.tensor
        self.llama = reference.llama(self.get, self.config, checkpoint.tied)
        self.tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json)

    def prompt(self, question: str | None, numbers: list[int], tiles: int, tokens: int) -> list[int]:
        replay = {k: f"<|reserved_special_token_{k + 2}|>" * tokens for k in numbers}
        if question is None:
            (k,) = numbers
            text = (
                f"There are some objects I am curious about: <Prompt{k}>;\n<Prompt{k}>: {replay[k]}"
                "Describe this masked region in detail."
            )
        else:
            text = "There are some objects I am curious about: " + "".join(f"<Prompt{k}>; " for k in numbers) + "\n"
            text += "".join(f"<Prompt{k}>: {replay[k]}\n" for k in numbers) + "\n" + question
        chat = (
            f"{SYSTEM}<|start_header_id|>user<|end_header_id|>\n\n" + "<|image|>" * (tiles * tokens) + text
            + "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        )  # fmt: skip
        return self.tokenizer.encode(chat, add_special_tokens=False).ids

    def embedded(
        self, image: np.ndarray, masks: Mapping[int, np.ndarray], question: str | None, max_tiles: int
    ) -> tuple[torch.Tensor, list[int]]:
        """A prompt's embeddings [S,C] and ids."""
        tile = self.checkpoint.config.vision.tile
        height, width = image.shape[:2]
        grid = choose_grid(width, height, tile, max_tiles)
        painted = np.full((height, width, 1), 5, np.uint8)
        for k in list(masks):
            painted[masks[k] & (painted[..., 0] == 5)] = k
        mask = (cut(painted, grid, tile)[:, 0].clamp(0, 5) != 5).float()
        features = reference.features(self.get, self.config, (cut(image, grid, tile) / 255 - 0.5) / 0.5, mask)
        boxes = []
        for k in list(masks):
            y, x = np.nonzero(masks[k])
            boxes.append([x.min() / width, y.min() / height, x.max() / width, y.max() / height])
        scale = self.config.get("replay_spatial_scale", 1 / 28)
        replayed = reference.roi_align(features.numpy(), grid, np.array(boxes, np.float32), scale)

        ids = self.prompt(question, list(masks), len(features), features.shape[1])
        embeds = self.llama.get_input_embeddings()(torch.tensor(ids))
        embeds[torch.tensor(ids) == self.config["mllm_config"]["image_token_id"]] = features.flatten(0, 1)
        for index, k in enumerate(list(masks)):
            embeds[torch.tensor(ids) == self.config["crop_tokens_ids"][k]] = torch.from_numpy(replayed[index])
        return embeds, ids

    def logprobs(self, embeds: torch.Tensor, said: list[int]) -> torch.Tensor:
        """Log-probabilities [1+N,V] behind a prompt's embeddings and behind each of N tokens after it, in float64."""
        whole = torch.cat([embeds, self.llama.get_input_embeddings()(torch.tensor(said, dtype=torch.long))])
        logits = self.llama(inputs_embeds=whole[None], logits_to_keep=len(said) + 1).logits[0]
        return logits.double().log_softmax(-1)

    def answer(
        self, image: np.ndarray, masks: Mapping[int, np.ndarray], question: str | None, max_tiles: int, count: int
    ) -> tuple[list[int], list[float], list[int]]:
        """Greedy tokens, the margin of each, and the prompt."""
        embeds, ids = self.embedded(image, masks, question, max_tiles)
        tokens: list[int] = []
        margins: list[float] = []
        past = None
        for _ in range(count):
            out = self.llama(inputs_embeds=embeds[None], past_key_values=past, use_cache=True, logits_to_keep=1)
            past = out.past_key_values
            (best, second), (token, _) = (x.tolist() for x in out.logits[0, -1].topk(2))
            tokens.append(token)
            margins.append(best - second)
            if token in self.checkpoint.stop_tokens:
                break
            embeds = self.llama.get_input_embeddings()(torch.tensor([token]))
        return tokens, margins, ids
