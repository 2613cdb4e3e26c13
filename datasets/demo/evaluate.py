#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the exported model on held-out text, and pastes the results.

    evaluate.py --work DIR --gguf demo.gguf

Writes metrics.json and the part of README.md between the two `results` marks.
"""

import argparse
import itertools
import json
import math
import os
import platform
import random

import gguf
import torch
import torch.nn.functional as F

import export
import generate
import tokenizer
from model import Config, Model, greedy

HERE = os.path.dirname(os.path.abspath(__file__))
EVAL_SEED = 424242
DOCS = 1000
QUESTIONS = 300
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"

PLAIN_SAMPLES = [
    ("Once upon a time there was a brave mouse called Lily.", 160),
    ("Long ago, a clever fox named Hugo lived near a quiet lake. One rainy day,", 160),
    ("The capital of France is", 8),
    ("Question: What is the opposite of hot?\nAnswer:", 16),
    ("27 + 45 =", 6),
    ("Monday, Tuesday, Wednesday,", 16),
]
CHAT_SAMPLES = [
    ([["user", "Hello!"]], 24),
    ([["user", "What is 58 plus 36?"]], 24),
    ([["user", "What colour is the sky?"]], 24),
    ([["system", "Answer with one word."], ["user", "What is the capital of Italy?"]], 8),
    ([["user", "Anna has a cat. Tom has a dog. Who has a dog?"]], 16),
    ([["user", "My name is Rosa."], ["assistant", "Nice to meet you, Rosa!"],
      ["user", "What is the plural of mouse?"], ["assistant", "The plural of mouse is mice."],
      ["user", "What is my name?"]], 16),
    ([["user", "Tell me a story about a bear."]], 160),
]


def model_of(weights):
    model = Model(Config())
    model.load_state_dict(weights)
    return model.eval()


def load_gguf(path):
    """The model with the dequantised tensors of the file."""
    stored = {t.name: t for t in gguf.GGUFReader(path).tensors}
    weights = {}
    for name, old in Model(Config()).state_dict().items():
        t = stored[export.tensor_name(name)]
        data = gguf.quants.dequantize(t.data, t.tensor_type)
        weights[name] = torch.tensor(data.copy()).reshape(old.shape)
    return model_of(weights)


def token_losses(model, ids):
    logits = model(torch.tensor([ids[:-1]]))[0]
    return F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")


def held_out_loss(model, docs):
    """Mean loss per token: over all tokens (also the questions and the markup), and
    over the tokens that the model has to write: plain stories, and everything else."""
    sums = {"all": [0.0, 0], "stories": [0.0, 0], "answers": [0.0, 0]}
    for parts, ids, weights in docs:
        losses = token_losses(model, ids)
        written = torch.tensor(weights[1:]) == 1.0
        kinds = {"all": torch.ones_like(written),
                 "stories" if parts[0][0] == "text" and len(ids) > 60 else "answers": written}
        for kind, mask in kinds.items():
            sums[kind][0] += losses[mask].sum().item()
            sums[kind][1] += int(mask.sum())
    return {k: {"loss": round(s / n, 4), "perplexity": round(math.exp(s / n), 3), "tokens": n}
            for k, (s, n) in sums.items()}


def answered(model, prompt, answer):
    """True where the greedy continuation of `prompt` is `answer`: each token of
    the answer must be the most likely one after those before it."""
    ids = prompt + answer
    best = model(torch.tensor([ids[:-1]]))[0].argmax(-1).tolist()
    return best[len(prompt) - 1:] == answer


def chat_case(tok, asked, answer, system=None):
    messages = ([["system", system]] if system else []) + [["user", asked]]
    prompt = tok.chat_prompt(messages)
    whole, _ = tok.chat(messages + [["assistant", answer]])
    return prompt, whole[len(prompt):-len(tok.encode("\n"))]


def plain_case(tok, before, answer):
    prompt = [tokenizer.BOS] + tok.encode(before)
    return prompt, ([tokenizer.BOS] + tok.encode(before + answer))[len(prompt):]


def accuracy_cases(tok):
    """{name: list of (prompt, answer)}; "held out" are operand pairs never trained on."""
    rng = random.Random(EVAL_SEED)
    cases = {}

    def chat(name, topic, **kw):
        found = [topic(rng, **kw)[:2] for _ in range(QUESTIONS)]
        cases[name] = [chat_case(tok, q, full) for q, full in found]

    for op, word in (("+", "addition"), ("-", "subtraction")):
        chat(f"{word}, held out, chat", generate.sum_question, held_out=True, op=op)
        equations = [generate.sum_question(rng, True, op) for _ in range(QUESTIONS)]
        cases[f"{word}, held out, plain `a {op} b =`"] = [
            plain_case(tok, full[:-len(v) - 1], " " + v) for _, full, v in equations]
    small = [(a, op, b) for a in range(10) for b in range(10) for op in "+-" if op == "+" or a >= b]
    cases["one-digit addition and subtraction (trained tables)"] = [
        chat_case(tok, f"What is {a} {op} {b}?", f"{a} {op} {b} = {generate.RESULT[op](a, b)}") for a, op, b in small]
    cases["multiplication to 10 x 10 (trained table)"] = [
        chat_case(tok, f"What is {a} x {b}?", f"{a} x {b} = {a * b}") for a in range(11) for b in range(11)]
    chat("comparison, held out", generate.compare_question, held_out=True)
    chat("word problems, held out", generate.word_problem, held_out=True)
    for name, topic in (("counting", generate.count_question), ("next in a row", generate.next_question),
                        ("number before and after", generate.neighbour_question),
                        ("double, half, even, odd", generate.single_number_question),
                        ("largest of a list, sorting", generate.list_question),
                        ("facts from tables", generate.table_question),
                        ("opposites", generate.opposite_question), ("kinds of things", generate.kind_question),
                        ("days and months", generate.calendar_question),
                        ("general questions", generate.general_question),
                        ("facts in the text before", generate.people_question),
                        ("question about a story", generate.short_story_question),
                        ("repeating words", generate.echo_question)):
        chat(name, topic)
    found = [generate.question(rng) for _ in range(QUESTIONS)]
    cases["any question, bare answer asked for by the system message"] = [
        chat_case(tok, q, bare, "Answer with one word or number only.") for q, _, bare in found]
    return cases


def accuracies(model, cases):
    return {name: round(sum(answered(model, *c) for c in found) / len(found), 4) for name, found in cases.items()}


def one_line(text):
    return text.replace("\n", "\\n")


def samples(model, tok):
    """Markdown of greedy outputs."""
    stop = {tokenizer.EOS, tokenizer.IM_END}
    out = ["Greedy continuations of plain text (the prompt stands before the arrow):", ""]
    for prompt, n in PLAIN_SAMPLES:
        ids = greedy(model, [tokenizer.BOS] + tok.encode(prompt), n, stop)
        shown = one_line(prompt)
        out.append(f"- `{shown}` -> `{one_line(tok.decode(ids))}`")
    out += ["", "Greedy answers in chat form:", ""]
    for messages, n in CHAT_SAMPLES:
        ids = greedy(model, tok.chat_prompt(messages), n, stop)
        shown = " / ".join(f"{role}: {text}" for role, text in messages)
        out.append(f"- {shown} -> `{one_line(tok.decode(ids))}`")
    return out


def results_text(metrics, sample_lines):
    lines = [f"Training: {metrics['training_minutes']} minutes, {metrics['training_steps']} steps, "
             f"{metrics['training_tokens'] / 1e6:.1f} million tokens; {metrics['parameters']} parameters.", "",
             f"Loss per token and perplexity on {DOCS} held-out documents:", "",
             "| tokens | F32 weights | Q8_0 weights, dequantised |", "| --- | --- | --- |"]
    for kind in ("all", "stories", "answers"):
        f32, q8 = metrics["held_out_f32"][kind], metrics["held_out_q8_0"][kind]
        lines.append(f"| {kind} ({f32['tokens']}) | {f32['loss']:.4f}, {f32['perplexity']:.3f} "
                     f"| {q8['loss']:.4f}, {q8['perplexity']:.3f} |")
    lines += ["", "Exactly right greedy answers (Q8_0 weights, chat form unless stated):", "",
              "| what | share |", "| --- | --- |"]
    lines += [f"| {name} | {100 * share:.1f} % |" for name, share in metrics["accuracy_q8_0"].items()]
    return "\n".join(lines + [""] + sample_lines)


def paste(path, text):
    with open(path) as f:
        readme = f.read()
    head, rest = readme.split(BEGIN)
    tail = rest.split(END)[1]
    with open(path, "w") as f:
        f.write(f"{head}{BEGIN}\n{text}\n{END}{tail}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--work", required=True, help="folder of train.py")
    ap.add_argument("--gguf", required=True)
    args = ap.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    tok = tokenizer.Tokenizer(os.path.join(args.work, "spm.model"))
    saved = torch.load(os.path.join(args.work, "model.pt"), map_location="cpu")
    f32, q8 = model_of(saved["model"]), load_gguf(args.gguf)
    stream = generate.documents(EVAL_SEED, held_out=True)
    docs = [(d, *tok.document(d)) for d in itertools.islice(stream, DOCS)]
    metrics = {
        "parameters": sum(p.numel() for p in f32.parameters()),
        "file_bytes": os.path.getsize(args.gguf),
        "frames": generate.count_frames(),
        "training_minutes": round(saved["state"]["seconds"] / 60, 1),
        "training_steps": saved["state"]["step"],
        "training_tokens": saved["state"]["tokens"],
        "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(),
        "held_out_f32": held_out_loss(f32, docs),
        "held_out_q8_0": held_out_loss(q8, docs),
        "accuracy_q8_0": accuracies(q8, accuracy_cases(tok)),
    }
    with open(os.path.join(HERE, "metrics.json"), "w") as f:
        f.write(json.dumps(metrics, indent=1) + "\n")
    paste(os.path.join(HERE, "README.md"), results_text(metrics, samples(q8, tok)))


if __name__ == "__main__":
    main()
