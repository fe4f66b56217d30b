"""The written checkpoint is in the released format, and reading it gives the same parameters back."""

import pytest
import torch
from safetensors.torch import load_file

from gar_edge.models import weights
from gar_edge.models.llama import Decoder
from gar_edge.models.nano import recipe
from gar_edge.models.nano.network import initialise
from gar_edge.models.nano.release import released_tensors
from gar_edge.models.vision import Encoder

MEGABYTE = 1_000_000


class Tensors:
    def __init__(self, tensors):
        self.tensors = tensors

    def names(self):
        return self.tensors.keys()

    def shape(self, name):
        return tuple(self.tensors[name].shape)

    def tensor(self, name):
        return self.tensors[name]


@pytest.fixture(scope="module")
def modules():
    torch.manual_seed(0)
    config = recipe.config()
    encoder, decoder = Encoder(config), Decoder(config.text)
    initialise(encoder, decoder)
    for module in (encoder, decoder):
        for parameter in module.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)
    return config, encoder, decoder


def test_names_and_shapes(modules):
    config = modules[0]
    written = {name: tuple(tensor.shape) for name, tensor in released_tensors(*modules).items()}
    assert written == weights.expected_shapes(config, tied=True)


def test_reading_inverts_writing(modules):
    config, encoder, decoder = modules
    source = Tensors(released_tensors(*modules))
    for module, recipes in (
        (encoder, weights.encoder_recipes(config)),
        (decoder, weights.decoder_recipes(config, tied=True)),
    ):
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(recipes[name].make(source, torch.float32), parameter.data, rtol=1e-6, atol=1e-6)


def test_shipped_checkpoint():
    path = recipe.SHIPPED / "model.safetensors"
    assert path.stat().st_size < 12 * MEGABYTE
    tensors = load_file(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == weights.expected_shapes(recipe.config(), tied=True)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in tensors.values())
