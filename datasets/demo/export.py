#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the trained model as GGUF: matrices in Q8_0, norms in F32.

    export.py --work DIR --out demo.gguf
"""

import argparse
import os

import gguf
import torch

import tokenizer
from model import Config

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
).replace("\\n", "\n")

BLOCK_NAMES = {"attn_norm": "attn_norm", "wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output",
               "ffn_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}


def tensor_name(name):
    """GGUF name of a parameter.  The output shares the token embedding."""
    if name == "embed.weight":
        return "token_embd.weight"
    if name == "norm.weight":
        return "output_norm.weight"
    _, layer, part, _ = name.split(".")
    return f"blk.{layer}.{BLOCK_NAMES[part]}.weight"


def write_header(w, cfg):
    w.add_name("Prima Demo")
    w.add_description("A very small language model, trained by the prima project on text it generates itself.")
    w.add_license("GPL-3.0-or-later")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    w.add_context_length(cfg.context)
    w.add_embedding_length(cfg.width)
    w.add_block_count(cfg.layers)
    w.add_feed_forward_length(cfg.ffn)
    w.add_head_count(cfg.heads)
    w.add_head_count_kv(cfg.kv_heads)
    w.add_layer_norm_rms_eps(cfg.eps)
    w.add_rope_dimension_count(cfg.head_dim)
    w.add_rope_freq_base(cfg.rope_base)
    w.add_vocab_size(cfg.vocab)


def token_type(sp, i):
    if sp.is_unknown(i):
        return gguf.TokenType.UNKNOWN
    if sp.is_control(i):
        return gguf.TokenType.CONTROL
    return gguf.TokenType.BYTE if sp.is_byte(i) else gguf.TokenType.NORMAL


def write_vocabulary(w, sp):
    ids = range(sp.get_piece_size())
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list([sp.id_to_piece(i) for i in ids])
    w.add_token_scores([sp.get_score(i) for i in ids])
    w.add_token_types([token_type(sp, i) for i in ids])
    w.add_bos_token_id(tokenizer.BOS)
    w.add_eos_token_id(tokenizer.EOS)
    w.add_unk_token_id(tokenizer.UNK)
    w.add_eot_token_id(tokenizer.IM_END)
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    w.add_add_space_prefix(True)
    w.add_chat_template(CHAT_TEMPLATE)


def write_tensors(w, weights):
    for name, value in weights.items():
        data = value.float().numpy()
        if data.ndim == 1:
            w.add_tensor(tensor_name(name), data)
            continue
        assert data.shape[1] % 32 == 0
        kind = gguf.GGMLQuantizationType.Q8_0
        w.add_tensor(tensor_name(name), gguf.quants.quantize(data, kind), raw_dtype=kind)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--work", required=True, help="folder of train.py")
    ap.add_argument("--out", required=True)
    args = ap.parse_args()
    tok = tokenizer.Tokenizer(os.path.join(args.work, "spm.model"))
    weights = torch.load(os.path.join(args.work, "model.pt"), map_location="cpu")["model"]
    w = gguf.GGUFWriter(args.out, "llama")
    write_header(w, Config())
    write_vocabulary(w, tok.sp)
    write_tensors(w, weights)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
