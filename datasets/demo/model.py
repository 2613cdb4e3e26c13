# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo model: a small Llama (RMSNorm, RoPE, grouped-query attention, SwiGLU)."""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Config:
    vocab: int = 1024
    layers: int = 8
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 384
    context: int = 512
    rope_base: float = 10000.0
    eps: float = 1e-5

    @property
    def head_dim(self):
        return self.width // self.heads


def rope_tables(cfg):
    """Cosine and sine for every position: [context, head_dim / 2]."""
    freq = cfg.rope_base ** (-torch.arange(0, cfg.head_dim, 2).float() / cfg.head_dim)
    angle = torch.arange(cfg.context).float()[:, None] * freq[None, :]
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Rotate the pairs (2i, 2i+1): the order GGUF expects for arch `llama`,
    so that the export needs no permutation.  x: [batch, time, heads, dim]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cos[None, :, None, :], sin[None, :, None, :]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        kv_width = cfg.kv_heads * cfg.head_dim
        self.attn_norm = nn.RMSNorm(cfg.width, eps=cfg.eps)
        self.wq = nn.Linear(cfg.width, cfg.width, bias=False)
        self.wk = nn.Linear(cfg.width, kv_width, bias=False)
        self.wv = nn.Linear(cfg.width, kv_width, bias=False)
        self.wo = nn.Linear(cfg.width, cfg.width, bias=False)
        self.ffn_norm = nn.RMSNorm(cfg.width, eps=cfg.eps)
        self.gate = nn.Linear(cfg.width, cfg.ffn, bias=False)
        self.up = nn.Linear(cfg.width, cfg.ffn, bias=False)
        self.down = nn.Linear(cfg.ffn, cfg.width, bias=False)

    def attention(self, x, cos, sin):
        cfg = self.cfg
        batch, time, _ = x.shape
        q = rotate(self.wq(x).view(batch, time, cfg.heads, cfg.head_dim), cos, sin)
        k = rotate(self.wk(x).view(batch, time, cfg.kv_heads, cfg.head_dim), cos, sin)
        v = self.wv(x).view(batch, time, cfg.kv_heads, cfg.head_dim)
        group = cfg.heads // cfg.kv_heads
        k = k.repeat_interleave(group, 2)
        v = v.repeat_interleave(group, 2)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2),
                                           v.transpose(1, 2), is_causal=True)
        return self.wo(y.transpose(1, 2).reshape(batch, time, cfg.width))

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attn_norm(x), cos, sin)
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Model(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.embed = nn.Embedding(cfg.vocab, cfg.width)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.layers))
        self.norm = nn.RMSNorm(cfg.width, eps=cfg.eps)
        cos, sin = rope_tables(cfg)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.init_weights()

    def init_weights(self):
        depth_scale = (2 * self.cfg.layers) ** -0.5
        for name, p in self.named_parameters():
            if p.dim() < 2:
                continue
            into_residual = name.endswith(("wo.weight", "down.weight"))
            std = 0.02 if name.startswith("embed") else self.cfg.width ** -0.5
            nn.init.normal_(p, std=std * (depth_scale if into_residual else 1.0))

    def forward(self, tokens):
        time = tokens.shape[1]
        cos, sin = self.cos[:time], self.sin[:time]
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, cos, sin)
        return F.linear(self.norm(x), self.embed.weight)    # tied output


def greedy(model, prompt, max_tokens, stop):
    """Greedy continuation of one list of token ids (no cache: it is short)."""
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(max_tokens):
            window = torch.tensor([tokens[-model.cfg.context:]])
            token = int(model(window)[0, -1].argmax())
            if token in stop:
                break
            tokens.append(token)
    return tokens[len(prompt):]
