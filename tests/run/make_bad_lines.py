#!/usr/bin/env python3
"""A prompts file with bad lines of many kinds, and what each must be answered with.

    make_bad_lines.py PROMPTS.jsonl EXPECTED.json [--lines 2000] [--bad 50] [--n-ctx 512] [--max-tokens 8]

EXPECTED.json: {"lines", "good", "bad": [{"line", "id", "openai", "kind", "code", "param"}, ...]} (line is 1-based, param null when
none is to be named). The same arguments give the same bytes. --n-ctx: the context the file will be run with.
"""
import argparse
import json
import random

SUBJECTS = ["The cat", "A small dog", "My neighbour", "The old clock", "Every bird", "The baker", "Our train", "A green door"]
VERBS = ["sees", "likes", "finds", "carries", "forgets", "paints", "counts", "hears"]
OBJECTS = ["a red ball", "the moon", "seven apples", "an old song", "the garden", "a letter", "warm bread", "two keys"]


def sentence(rng):
    return f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}."


def good(rng, number, max_tokens):
    """A line that must run: both shapes, chat and plain prompt, assorted settings."""
    body = {"max_tokens": rng.randint(1, max_tokens)}
    if rng.random() < 0.5:
        body["messages"] = [{"role": "user", "content": sentence(rng)}]
        if rng.random() < 0.5:
            body["messages"].insert(0, {"role": "system", "content": "You answer in one sentence."})
    else:
        body["prompt"] = sentence(rng)
    extra = {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1, "presence_penalty": -0.5,
             "seed": number, "stop": ["\n\n", "###"], "ignore_eos": True, "user": "someone", "n": 1, "stream": False, "tools": None,
             "logit_bias": {}}
    for key in rng.sample(sorted(extra), 3):
        body[key] = extra[key]
    if rng.random() < 0.5:
        url = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        body["model"] = "any"
        return {"custom_id": f"request-{number}", "method": "POST", "url": url, "body": body}
    if rng.random() < 0.9:
        body = {"id": f"request-{number}", **body}
    return {**body, "metadata": {"number": number}}


def plain(ident, **fields):
    return {"id": ident, "prompt": "Once upon a time", **fields}


def chat(ident, **fields):
    body = {"messages": [{"role": "user", "content": "Hello"}], **fields}
    return {"custom_id": ident, "method": "POST", "url": "/v1/chat/completions", "body": body}


def without(record, key):
    return {k: v for k, v in record.items() if k != key}


def text(record):
    return json.dumps(record, ensure_ascii=False).encode()


# name -> function(id, n_ctx) -> (bytes of the line, code, param, is the id readable)
def kinds(n_ctx):
    deep = "[" * 70 + "]" * 70
    return [
        ("cut off", lambda i: (text(plain(i))[:-9], "invalid_json", None, False)),
        ("text behind the object", lambda i: (text(plain(i)) + b" and more", "invalid_json", None, False)),
        ("duplicate key", lambda i: (text(plain(i))[:-1] + b', "prompt": "again"}', "invalid_json", None, False)),
        ("half a surrogate pair", lambda i: (text(plain(i))[:-1] + b', "stop": "\\ud83d"}', "invalid_json", None, False)),
        ("nested too deep", lambda i: (text(plain(i))[:-1] + f', "metadata": {{"x": {deep}}}}}'.encode(), "invalid_json", None, False)),
        ("not an object", lambda i: (b'["prompt", "Hello"]', "invalid_json", None, False)),
        ("not UTF-8", lambda i: (text(plain(i)).replace(b"upon", b"up\xffn"), "invalid_utf8", None, False)),
        ("an overlong form", lambda i: (text(plain(i)).replace(b"upon", b"up\xc0\xafn"), "invalid_utf8", None, False)),
        ("no prompt", lambda i: (text({"id": i, "max_tokens": 5}), "missing_field", "prompt", True)),
        ("no url", lambda i: (text(without(chat(i), "url")), "missing_field", "url", True)),
        ("no content", lambda i: (text(chat(i, messages=[{"role": "user"}])), "missing_field", "messages[0].content", True)),
        ("temperature below 0", lambda i: (text(plain(i, temperature=-1)), "invalid_value", "temperature", True)),
        ("max_tokens 0", lambda i: (text(chat(i, max_tokens=0)), "invalid_value", "max_tokens", True)),
        ("a word for a number", lambda i: (text(plain(i, top_k="many")), "invalid_value", "top_k", True)),
        ("unknown role", lambda i: (text(chat(i, messages=[{"role": "robot", "content": "x"}])), "invalid_value", "messages[0].role", True)),
        ("no messages", lambda i: (text(chat(i, messages=[])), "invalid_value", "messages", True)),
        ("prompt and messages", lambda i: (text(chat(i, prompt="x")), "invalid_value", "prompt", True)),
        ("17 stop strings", lambda i: (text(plain(i, stop=[str(k) for k in range(17)])), "invalid_value", "stop", True)),
        ("top_logprobs alone", lambda i: (text(chat(i, top_logprobs=3)), "invalid_value", "top_logprobs", True)),
        ("both names of a setting", lambda i: (text(chat(i, max_tokens=5, max_completion_tokens=5)), "invalid_value", "max_completion_tokens", True)),
        ("another endpoint", lambda i: (text({**chat(i), "url": "/v1/embeddings"}), "invalid_value", "url", True)),
        ("misspelt", lambda i: (text(plain(i, temprature=0.5)), "unknown_parameter", "temprature", True)),
        ("two answers", lambda i: (text(chat(i, n=2)), "unsupported_parameter", "n", True)),
        ("streaming", lambda i: (text(plain(i, stream=True)), "unsupported_parameter", "stream", True)),
        ("does not fit", lambda i: (text(plain(i, max_tokens=n_ctx)), "context_length_exceeded", "max_tokens", True)),
    ]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("prompts")
    ap.add_argument("expected")
    ap.add_argument("--lines", type=int, default=2000)
    ap.add_argument("--bad", type=int, default=50)
    ap.add_argument("--n-ctx", type=int, default=512)
    ap.add_argument("--max-tokens", type=int, default=8)
    args = ap.parse_args()
    rng = random.Random(7)
    table = kinds(args.n_ctx)
    places = dict(zip(sorted(rng.sample(range(1, args.lines + 1), args.bad)), range(args.bad)))
    bad = []
    with open(args.prompts, "wb") as out:
        for number in range(1, args.lines + 1):
            if number not in places:
                out.write(text(good(rng, number, args.max_tokens)) + b"\n")
                continue
            name, make = table[places[number] % len(table)]
            ident = f"bad-{number}"
            line, code, param, readable = make(ident)
            openai = b'"body"' in line and code not in ("invalid_json", "invalid_utf8")
            bad.append({"line": number, "id": ident if readable else f"line-{number}", "openai": openai, "kind": name, "code": code,
                        "param": param})
            out.write(line + b"\n")
    with open(args.expected, "w") as out:
        json.dump({"lines": args.lines, "good": args.lines - args.bad, "bad": bad}, out, indent=1)


if __name__ == "__main__":
    main()
