"""A checkpoint for a tokenizer with tokens for tools and fill-in-the-middle (v3): random weights, tiny.

python -m tests.e2e.code_checkpoint FOLDER
"""

import sys

import torch
from transformers import GenerationConfig, MistralConfig, MistralForCausalLM

VOCABULARY = 32_768  # of mistral-common's v3 tokenizer
BOS_ID, EOS_ID = 1, 2
SEED = 2_405

torch.manual_seed(SEED)
model = MistralForCausalLM(
    MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2_048,
        tie_word_embeddings=True,
        sliding_window=None,
        initializer_range=0.1,
    )
)
model.generation_config = GenerationConfig(bos_token_id=BOS_ID, eos_token_id=EOS_ID)
model.save_pretrained(sys.argv[1])
