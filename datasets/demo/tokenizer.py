# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary: SentencePiece BPE with byte fallback, 1024 tokens.

Documents are tokenised exactly as a GGUF loader does it: the text between two
control tokens is tokenised on its own, with a space put before it.
"""

import io
import itertools

import sentencepiece as spm

import generate

VOCAB = 1024
UNK, BOS, EOS, IM_START, IM_END = range(5)
CONTROLS = ["<|im_start|>", "<|im_end|>"]
SAMPLE_DOCS = 30000

# How much a predicted token counts in training.  Questions are read, not
# written, by the model: their random operands and names teach it little.
WEIGHT = {"text": 1.0, "answer": 1.0, "assistant": 1.0,
          "prompt": 0.15, "user": 0.15, "system": 0.05}
MARKUP_WEIGHT = 0.05


def sample_text(seed):
    """Training text of the vocabulary.

    A line break starts a word without the leading space that SentencePiece puts
    before every line; a digit in its place does so too (digits are always split
    off) and leaves the line break itself to the byte token <0x0A>."""
    for doc in itertools.islice(generate.documents(seed), SAMPLE_DOCS):
        for role, text in doc:
            head = f"{role}0" if role in ("system", "user", "assistant") else ""
            yield (head + text).replace("\n", "0")


def train(path, seed):
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=sample_text(seed), model_writer=model, model_type="bpe", vocab_size=VOCAB,
        byte_fallback=True, split_digits=True, add_dummy_prefix=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        character_coverage=1.0, control_symbols=CONTROLS, unk_id=UNK, bos_id=BOS, eos_id=EOS,
        pad_id=-1, num_threads=1, minloglevel=1)
    with open(path, "wb") as f:
        f.write(model.getvalue())


class Tokenizer:
    def __init__(self, path):
        self.sp = spm.SentencePieceProcessor(model_file=path)
        assert [self.sp.piece_to_id(c) for c in CONTROLS] == [IM_START, IM_END]

    def encode(self, text):
        return self.sp.encode(text)

    def decode(self, ids):
        return self.sp.decode(ids)

    def plain(self, parts):
        """Ids and weights of plain text: <s> text </s>."""
        ids = self.encode(generate.doc_text(parts))
        weights, done, prefix = [], 0, ""
        for role, text in parts:
            prefix += text
            end = len(self.encode(prefix))      # parts meet at white space: no token spans two
            weights += [WEIGHT[role]] * (end - done)
            done = end
        return [BOS] + ids + [EOS], [0.0] + weights + [WEIGHT[parts[-1][0]]]

    def chat(self, parts):
        """Ids and weights of a conversation in ChatML."""
        ids, weights = [BOS], [0.0]
        for role, text in parts:
            head = self.encode(role + "\n")
            body = self.encode(f"{role}\n{text}")[len(head):]
            line_end = self.encode("\n")
            ids += [IM_START] + head + body + [IM_END] + line_end
            weights += [MARKUP_WEIGHT] * (1 + len(head)) + [WEIGHT[role]] * (len(body) + 1)
            weights += [MARKUP_WEIGHT] * len(line_end)
        return ids, weights

    def document(self, parts):
        return self.plain(parts) if parts[0][0] in ("text", "prompt") else self.chat(parts)

    def chat_prompt(self, messages):
        """Ids of the messages and of the start of the assistant's answer."""
        return self.chat(messages)[0] + [IM_START] + self.encode("assistant\n")
