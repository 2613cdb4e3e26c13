#!/usr/bin/env python3
"""Makes pretok.jsonl:  tests/golden/pretok.py llama-tokenize > tests/golden/pretok.jsonl

The token ids that llama.cpp (commit c392e50) gives for the same texts under each pre-tokenizer. The vocabulary is made
for the purpose: the 256 bytes and every pair of bytes, merged in the order of a fixed shuffle. Bytes pair up only
inside a word, so the ids show where a text was cut. test_vocab.c builds the same vocabulary (pairs_vocab)."""
import json
import os
import struct
import subprocess
import sys
import tempfile

PRES = ["llama-bpe", "smaug-bpe", "qwen2", "gpt-2", "starcoder", "falcon", "default", "deepseek-llm",
        "deepseek-coder", "tekken"]

TEXTS = [
    "Hello World, don't you think it's THEY'LL 'tis o'clock 'Ve 're we'd've I'M x's 'S'T",
    "1 12 123 1234 12345 1234567890 3.14159 1,000,000 0x1F 1a2b3c v2.0 \u0663\u0664\u0665 \u2167 \u00bd \u00b2\u00b3",
    "   leading,  double   triple    trailing   ",
    "tab\there\t\ttwo\nline\n\nlines\r\nwindows\r\n\r\n  \n  indented\n\tcode\n \n",
    "\u00a0nbsp\u00a0\u00a0 \u2003em\u3000wide\u3000\u3000 \u2028ls\u2029ps \u0085nel\u0085 \u180emvs \u200bzwsp \ufeffbom",
    "if (x_y != 0 && a[i] >= 3) { return \"s\" + 'c' + `t` ^ ~z | y; } // !? ... --> $5 <=> #include <stdio.h>\n",
    "\u4e2d\u6587\u5b57\u7b26\uff0c\u3042\u308a\u304c\u3068\u3046\u3002\u30ab\u30bf\u30ab\u30ca \ud55c\uad6d\uc5b4 \u4e2d a\u4e2db 1\u4e2d2 \u3000\u4e2d",
    "\u00c0\u00c9\u00ee\u00df \u041f\u0440\u0438\u0432\u0435\u0442 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u0939\u093f\u0928\u094d\u0926\u0940 "
    "\u0e44\u0e17\u0e22 e\u0301 \u01c5 \u00aa \ufb01 \uff21\uff42\uff43 \u1c90\u1c91 \U00010400 \U0001d4b3 \u017f '\u017f",
    "\U0001f642\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \u2211\u221e\u20ac \u201cquoted\u201d \u2018x\u2019 \u2026 \uff01\uff08\u5168\u89d2\uff09 \u00b0C \u21165",
    "CamelCaseWords snake_case ALLCAPS miXedCASE xY Zz\u00c9t\u00e9 \u00e9\u00c9A a/b//c /usr/bin\n/\r\n//\n",
    "\U0002ebf0\U0002ebf1 \U00031350\U00031351 a\U00031350 \U0001e4f0\U0001e4f1 \U00011f50 \U00011f43\U00011f44",
    "Mixed:\u4f60\u597d123World!!! \u3002\u3002\u3002\u2018\u2019 a,b;c:d 'a' ''b'' \"\u00e9\u00e8\" \x01\x02\x7f \u0300x  .  ,",
]


def alphabet():
    """GPT-2's characters for the bytes 0..255."""
    printable = [b for b in range(256) if 0x21 <= b <= 0x7e or (b >= 0xa1 and b != 0xad)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) if b in printable else chr(256 + others.index(b)) for b in range(256)]


def string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def strings(key, values):
    return string(key) + struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(string, values))


def vocabulary(pre):
    chars = alphabet()
    # Pair k is (k * 40503 mod 65536): an odd factor, so every pair comes once, and in an order without a pattern.
    pairs = [divmod(k * 40503 % 65536, 256) for k in range(65536)]
    kv = [string(key) + struct.pack("<I", 8) + string(value) for key, value in
          (("general.architecture", "llama"), ("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", pre))]
    kv += [string("tokenizer.ggml.%s_token_id" % name) + struct.pack("<II", 4, 0) for name in ("bos", "eos")]
    kv.append(strings("tokenizer.ggml.tokens", chars + [chars[a] + chars[b] for a, b in pairs]))
    kv.append(strings("tokenizer.ggml.merges", [chars[a] + " " + chars[b] for a, b in pairs]))
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(kv)) + b"".join(kv)


def main():
    with tempfile.TemporaryDirectory() as folder:
        model, prompt = os.path.join(folder, "m.gguf"), os.path.join(folder, "p.txt")
        for pre in PRES:
            with open(model, "wb") as f:
                f.write(vocabulary(pre))
            for text in TEXTS:
                if pre == "tekken" and "\U00031350" in text:
                    continue  # characters newer than PCRE2's Unicode: see pretok.c
                with open(prompt, "wb") as f:
                    f.write(text.encode())
                out = subprocess.run([sys.argv[1], "-m", model, "-f", prompt, "--ids", "--no-bos", "--no-escape",
                                      "--no-parse-special", "--log-disable"], capture_output=True, check=True).stdout
                print(json.dumps({"pre": pre, "text": text, "ids": json.loads(out)}))


main()
