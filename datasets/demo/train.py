#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains the demo model for a given number of minutes (CPU or CUDA).

    train.py --work DIR --minutes 35

DIR receives the vocabulary (spm.model) and the checkpoint (model.pt, written
once a minute); a second call with the same DIR goes on from the checkpoint.
The learning rate follows the elapsed time, so that the budget is always used
up exactly.  Text is generated while training; no document is seen twice on
purpose.
"""

import argparse
import json
import math
import os
import time

import torch
import torch.nn.functional as F

import generate
import tokenizer
from model import Config, Model

VOCAB_SEED = 7
TRAIN_SEED = 1000
SHORT_ROW, LONG_ROW = 256, 512
LONG_ROWS_FROM = 0.85           # the last part of the time trains on long rows


def rows(tok, seed, length, pool_size=64):
    """Endless rows of `length` + 1 token ids and weights, whole documents only.

    The first waiting document that fits is taken, so that little is padded."""
    stream = generate.documents(seed)
    pool = []
    while True:
        ids, weights = [], []
        while True:
            while len(pool) < pool_size:
                doc = tok.document(next(stream))
                if len(doc[0]) <= length + 1:
                    pool.append(doc)
            fit = next((i for i, d in enumerate(pool) if len(ids) + len(d[0]) <= length + 1), None)
            if fit is None:
                break
            doc = pool.pop(fit)
            ids += doc[0]
            weights += doc[1]
        pad = length + 1 - len(ids)
        yield ids + [tokenizer.EOS] * pad, weights + [0.0] * pad


def batch(source, count, device):
    chosen = [next(source) for _ in range(count)]
    ids = torch.tensor([r[0] for r in chosen], device=device)
    weights = torch.tensor([r[1] for r in chosen], device=device)
    return ids, weights


def weighted_loss(logits, ids, weights):
    loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weights = weights[:, 1:].flatten()
    return (loss * weights).sum() / weights.sum()


def make_optimizers(model, args):
    """Muon for the matrices of the blocks, AdamW for the embedding and the norms."""
    matrices = [p for b in model.blocks for p in b.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    adam = torch.optim.AdamW([{"params": norms, "weight_decay": 0.0},
                              {"params": [model.embed.weight], "weight_decay": 0.01}],
                             lr=args.lr, betas=(0.9, 0.98), fused=True)
    if not args.muon:
        adam.add_param_group({"params": matrices, "weight_decay": 0.1})
        return [adam]
    muon = torch.optim.Muon(matrices, lr=args.muon_lr, weight_decay=0.1, momentum=0.95)
    return [adam, muon]


def set_rate(optimizers, base, progress, step):
    """Linear warm-up over 100 steps, then a cosine over the time budget."""
    factor = min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
    for opt, rate in zip(optimizers, base):
        for group in opt.param_groups:
            group["lr"] = rate * factor


def save(path, model, optimizers, state):
    torch.save({"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers],
                "state": state}, path + ".new")
    os.replace(path + ".new", path)


def parse_args():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--work", required=True, help="folder for vocabulary and checkpoint")
    ap.add_argument("--minutes", type=float, default=35.0)
    ap.add_argument("--tokens-per-step", type=int, default=4096)
    ap.add_argument("--lr", type=float, default=4e-3)
    ap.add_argument("--muon-lr", type=float, default=3e-2)
    ap.add_argument("--muon", action=argparse.BooleanOptionalAction, default=True)
    ap.add_argument("--threads", type=int, default=1)
    return ap.parse_args()


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    os.makedirs(args.work, exist_ok=True)
    vocab_path = os.path.join(args.work, "spm.model")
    if not os.path.exists(vocab_path):
        tokenizer.train(vocab_path, VOCAB_SEED)
    tok = tokenizer.Tokenizer(vocab_path)

    model = Model(Config()).to(device)
    optimizers = make_optimizers(model, args)
    base = [args.lr, args.muon_lr]
    state = {"step": 0, "seconds": 0.0, "tokens": 0, "starts": 0}
    checkpoint = os.path.join(args.work, "model.pt")
    if os.path.exists(checkpoint):
        saved = torch.load(checkpoint, map_location=device)
        model.load_state_dict(saved["model"])
        for opt, old in zip(optimizers, saved["optimizers"]):
            opt.load_state_dict(old)
        state = saved["state"]
    state["starts"] += 1
    compiled = torch.compile(model, dynamic=False)
    sources = {n: rows(tok, TRAIN_SEED + 10 * state["starts"] + i, n)
               for i, n in enumerate((SHORT_ROW, LONG_ROW))}

    budget = args.minutes * 60
    last_save = time.time()
    recent = []
    while state["seconds"] < budget:
        begin = time.time()
        progress = state["seconds"] / budget
        length = SHORT_ROW if progress < LONG_ROWS_FROM else LONG_ROW
        ids, weights = batch(sources[length], args.tokens_per_step // length, device)
        set_rate(optimizers, base, progress, state["step"])
        with torch.autocast(device, torch.bfloat16):
            logits = compiled(ids[:, :-1])
        loss = weighted_loss(logits, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in optimizers:
            opt.step()
            opt.zero_grad()
        recent.append(loss.item())
        state["step"] += 1
        state["tokens"] += ids[:, 1:].numel()
        state["seconds"] += time.time() - begin
        if state["step"] % 20 == 0:
            print(json.dumps({**state, "loss": round(sum(recent) / len(recent), 4)}), flush=True)
            recent.clear()
        if time.time() - last_save > 60:
            save(checkpoint, model, optimizers, state)
            last_save = time.time()
    save(checkpoint, model, optimizers, state)


if __name__ == "__main__":
    main()
