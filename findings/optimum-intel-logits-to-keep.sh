#!/usr/bin/env bash
# optimum-intel takes logits_to_keep without a word and computes the logits of every position of the prompt all the same.
#
# optimum-intel 2.2.0 with OpenVINO 2026.4.1, transformers 5.5.4, torch 2.13.0 (PyPI, Linux x86-64, Python 3.11):
# `logits_to_keep=1`, which transformers' Llama answers with the logits of the last position alone and which `generate`
# passes to models that name it, is accepted by an exported Llama's `forward` and changes nothing: [1, 40, 300] comes back,
# where transformers gives [1, 1, 300]. `generate` cannot ask either, for the signature does not name it. With a
# vocabulary of 128,262 a prompt of 1,843 tokens makes 945 MB of logits, of which 0.5 MB are read.
#
# torchvision is taken out again, for a decoder needs none and its wheel must be of the same build as torch's.
#
# Seen on 2026-11-29; fails if one of these changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    optimum-intel==2.2.0 openvino==2026.4.1 nncf==3.4.0 transformers==5.5.4 torch==2.13.0 openvino-tokenizers==2026.4.1.0
"$folder/venv/bin/pip" uninstall --quiet --yes torchvision 2>/dev/null || true
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder/model" <<'PYTHON'
import inspect
import sys

import torch
from optimum.intel import OVModelForCausalLM
from transformers import LlamaConfig, LlamaForCausalLM

llama = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )
).eval()
llama.save_pretrained(sys.argv[1])
exported = OVModelForCausalLM.from_pretrained(sys.argv[1], export=True)

prompt = torch.arange(40)[None]
mask = torch.ones_like(prompt)
theirs = tuple(llama(prompt, attention_mask=mask, logits_to_keep=1).logits.shape)
found = tuple(exported(input_ids=prompt, attention_mask=mask, logits_to_keep=1).logits.shape)
named = "logits_to_keep" in inspect.signature(exported.forward).parameters
print("transformers:", theirs, "optimum-intel:", found, "named in its signature:", named)
assert theirs == (1, 1, 300), "changed: transformers"
assert found == (1, 40, 300), "changed: optimum-intel computes what is asked for"
assert not named, "changed: generate can ask"
PYTHON
