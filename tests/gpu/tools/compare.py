"""What `prima run` wrote on two ways for the same prompts (tests/gpu/run):

    compare.py same A B             completions must be the same, timings aside
    compare.py close LIMIT A B      log probabilities must agree: rms of the differences at most LIMIT, over all
                                    positions up to and with the first at which the two went on differently
"""
import json
import math
import sys


def lines(path):
    with open(path, encoding="utf-8") as f:
        found = [json.loads(line) for line in f]
    for line in found:
        if line["error"]:
            sys.exit(f"{path}: {line['id']}: {line['error']}")
        line.pop("timings", None)
    if not found:
        sys.exit(f"{path} is empty")
    return {line["id"]: line for line in found}


def differences(x, y):
    """Between log probabilities of tokens that both name."""
    x, y = x["logprobs"], y["logprobs"]
    for i, (p, q) in enumerate(zip(x["top_logprobs"], y["top_logprobs"])):
        yield from (p[token] - q[token] for token in p if token in q)
        if x["tokens"][i] != y["tokens"][i]:
            break


def main():
    how, *limit, a_path, b_path = sys.argv[1:]
    a, b = lines(a_path), lines(b_path)
    if a.keys() != b.keys():
        sys.exit("other requests were answered")
    if how == "same":
        different = [i for i in a if a[i] != b[i]]
        if different:
            sys.exit(f"{len(different)} of {len(a)} completions differ: {' '.join(different[:5])}")
        return
    d = [x for i in a for x in differences(a[i], b[i])]
    rms = math.sqrt(sum(x * x for x in d) / len(d)) if d else math.inf
    print(f"{rms:.4f}")
    if not rms <= float(limit[0]):
        sys.exit(f"log probabilities differ by {rms:.4f} (rms of {len(d)}), more than {limit[0]}")


main()
