"""What is quantised and how, and the parameters that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from gar_edge.calibration.float8 import FP8_MAX, fp8_per_channel
from gar_edge.calibration.rounding import INT8_MAX, Rounded, block_of, int4_blocks, int8_per_channel
from gar_edge.calibration.sites import HEAD, Fold, Site
from gar_edge.models.weights import Maker, Recipe, WeightSource

ROUNDED, SCALE, ZERO_POINT = "_q", "_scale", "_zero_point"


class Scheme(str, Enum):
    """How a site's products are computed: W8A8 of integers or of E4M3, W4 with float activations, or as before."""

    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"
    FLOAT = "float"

    @property
    def largest(self) -> float:
        """What an activation's threshold becomes; 0 where activations stay float."""
        return {Scheme.INT8: float(INT8_MAX), Scheme.FP8: FP8_MAX}.get(self, 0.0)


@dataclass(frozen=True)
class SitePlan:
    """One site's decisions.

    step: the activation's scale, what its integer or E4M3 number 1 stands for (schemes int8, fp8). smooth: [C] what
    the input is divided by upstream, and the weights' rows multiplied by. importance: [C] mean squares of the smoothed
    input, the weights of int4's rounding errors. alpha: how much of the range moved from activations into weights.
    snr_db: signal over quantisation noise of the outputs (of a wide layer: of some) on calibration rows. top: largest
    |x| seen, after smoothing.
    """

    site: Site
    scheme: Scheme
    step: float = 0.0
    smooth: Tensor | None = None
    importance: Tensor | None = None
    alpha: float = 0.0
    snr_db: float = float("inf")
    top: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The decisions for one graph, by site name."""

    sites: Mapping[str, SitePlan] = field(default_factory=dict)

    def parameters(self, recipes: Mapping[str, Recipe]) -> dict[str, Maker]:
        """The recipes of the quantised graph's parameters: smoothed, and rounded where the plan says so."""
        smoothed = self.smoothed(recipes)
        makers: dict[str, Maker] = dict(smoothed)
        for plan in self.sites.values():
            if plan.scheme is Scheme.FLOAT:
                continue
            for name in plan.site.weights:
                del makers[name]
                rounding = Rounding(smoothed[name], plan.scheme, plan.importance, 0 if name == HEAD else 1)
                makers[name + ROUNDED] = RoundedPart(rounding, scale=False)
                makers[name + SCALE] = RoundedPart(rounding, scale=True)
                if name == HEAD and plan.scheme is Scheme.INT8:
                    makers[name + ZERO_POINT] = RowZeros(smoothed[name])
        return makers

    def smoothed(self, recipes: Mapping[str, Recipe]) -> dict[str, Recipe]:
        """Float recipes with every smoothing folded in; the model that they make is equal but for rounding."""
        changed = dict(recipes)
        for plan in self.sites.values():
            site, scale = plan.site, plan.smooth
            if scale is None or site.fold is None:
                continue
            for name in site.fold.parameters:
                changed[name] = _divided(changed[name], site.fold, site.fold.upstream(scale))
            for name in site.weights:
                changed[name] = _multiplied(changed[name], scale if name == HEAD else scale[:, None])
        return changed


def _divided(recipe: Recipe, fold: Fold, scale: Tensor) -> Recipe:
    def build(*sources: Tensor) -> Tensor:
        made = recipe.build(*sources).clone()
        made[..., fold.begin :] /= scale
        return made

    return Recipe(recipe.sources, build)


def _multiplied(recipe: Recipe, scale: Tensor) -> Recipe:
    return Recipe(recipe.sources, lambda *sources: recipe.build(*sources) * scale)


class Rounding:
    """Rounds one weight when its integers are asked for, and keeps the scales until these are."""

    def __init__(self, recipe: Recipe, scheme: Scheme, importance: Tensor | None, axis: int) -> None:
        self._recipe, self._scheme, self._importance, self._axis = recipe, scheme, importance, axis
        self._scale: Tensor | None = None

    def integers(self, source: WeightSource) -> Tensor:
        """The rounded numbers: int8, packed int4 or E4M3."""
        rounded = self._round(source)
        self._scale = rounded.scale
        return rounded.q

    def scale(self, source: WeightSource) -> Tensor:
        """The scales, float16."""
        scale = self._round(source).scale if self._scale is None else self._scale
        self._scale = None
        return scale

    def _round(self, source: WeightSource) -> Rounded:
        weight = self._recipe.make(source, torch.float32)
        if self._scheme is Scheme.INT4:
            block = block_of(weight.shape[0])
            if block is None:
                raise ValueError(f"no int4 block divides {weight.shape[0]} rows")
            return int4_blocks(weight, block, self._importance)
        return weight_rounder(self._scheme)(weight, self._axis)


def weight_rounder(scheme: Scheme) -> Callable[[Tensor, int], Rounded]:
    """How a scheme rounds a weight by output channel, given the axis of these."""
    return fp8_per_channel if scheme is Scheme.FP8 else int8_per_channel


@dataclass(frozen=True)
class RoundedPart:
    """A `Maker` of a rounded weight's numbers or scales."""

    rounding: Rounding
    scale: bool

    def make(self, source: WeightSource, dtype: torch.dtype) -> Tensor:
        """Integers as they are stored; scales as float16 whatever the graph computes in."""
        part = self.rounding.scale(source) if self.scale else self.rounding.integers(source)
        return part.contiguous()


@dataclass(frozen=True)
class RowZeros:
    """A `Maker` of explicit zero points: ONNX Runtime makes an integer Gemm only of a weight that has them."""

    recipe: Recipe

    def make(self, source: WeightSource, dtype: torch.dtype) -> Tensor:
        """Int8 zeros, one per row."""
        (name,) = self.recipe.sources
        return torch.zeros(source.shape(name)[0], dtype=torch.int8)
