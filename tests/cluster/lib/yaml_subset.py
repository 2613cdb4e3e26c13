"""The part of YAML that a box is written in: mappings and lists by indentation or in one line, plain and
double-quoted scalars, comments. Everything else is refused with its line, so that nothing is misread.

    read(text) -> dict, list, str, int, float, bool or None
"""
import re


class BadYaml(Exception):
    pass


def scalar(text):
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


class Flow:
    """{a: 1, b: [2, 3]} in one line."""

    def __init__(self, text, line):
        self.text, self.at, self.line = text, 0, line

    def fail(self, what):
        raise BadYaml(f"line {self.line}: {what} at '{self.text[self.at:]}'")

    def skip(self):
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1

    def take(self, c):
        self.skip()
        if self.text[self.at : self.at + 1] != c:
            return False
        self.at += 1
        return True

    def word(self, pattern):
        self.skip()
        found = re.compile(r'"[^"]*"|' + pattern).match(self.text, self.at)
        if not found:
            self.fail("a value is missing")
        self.at = found.end()
        return found.group()

    def value(self):
        if self.take("{"):
            return self.pairs()
        if self.take("["):
            return self.items()
        return scalar(self.word(r"[^\s{}\[\],&*!|>%@`'\"][^{}\[\],]*"))

    def pairs(self):
        out = {}
        while not self.take("}"):
            key = self.word(r"[\w-]+")
            if not self.take(":"):
                self.fail("':' expected")
            if key in out:
                self.fail(f"'{key}' is given twice, before")
            out[key] = self.value()
            self.take(",")
        return out

    def items(self):
        out = []
        while not self.take("]"):
            out.append(self.value())
            self.take(",")
        return out

    def whole(self):
        value = self.value()
        self.skip()
        if self.at < len(self.text):
            self.fail("nothing more expected")
        return value


def lines_of(text):
    """(number, indentation, content) of lines that say something."""
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", line).rstrip()
        if line:
            yield number, len(line) - len(line.lstrip(" ")), line.strip()


def block(lines, indent):
    """The mapping or list whose lines begin at this indentation; takes them off `lines`."""
    out = [] if lines[0][2].startswith("- ") else {}
    while lines and lines[0][1] == indent:
        number, _, content = lines.pop(0)
        is_item = content.startswith("- ")
        if is_item != isinstance(out, list):
            raise BadYaml(f"line {number}: a list and a mapping mixed")
        if is_item:
            out.append(Flow(content[2:], number).whole())
            continue
        key, colon, rest = content.partition(":")
        if not colon or key in out:
            raise BadYaml(f"line {number}: expected KEY: VALUE, every key once; found '{content}'")
        if rest.strip():
            out[key] = Flow(rest, number).whole()
        elif lines and lines[0][1] > indent:
            out[key] = block(lines, lines[0][1])
        else:
            raise BadYaml(f"line {number}: '{key}' has no value")
    if lines and lines[0][1] > indent:
        raise BadYaml(f"line {lines[0][0]}: indented for no reason")
    return out


def read(text):
    lines = list(lines_of(text))
    if not lines:
        raise BadYaml("nothing in it")
    value = block(lines, 0)
    if lines:
        raise BadYaml(f"line {lines[0][0]}: indentation does not match")
    return value
