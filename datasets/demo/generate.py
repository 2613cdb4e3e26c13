#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generates the text the demo model learns from (standard library only).

A document is a list of parts [role, text].  The roles of plain text are "text",
"prompt" and "answer" (simply joined); those of a chat are "system", "user" and
"assistant".  Only the roles tell the training what to weigh how much.

Nothing held out is ever trained on: a document whose text has the checksum
HELD_OUT belongs to the held-out set, and so does every sum, difference and
comparison of two-digit operands whose own checksum says so.

    generate.py --count 5            print five training documents
    generate.py --held-out --count 5 print five held-out documents
    generate.py --frames             print how many sentence frames there are
"""

import argparse
import json
import random
import re
import zlib

import frames_story as st
import frames_talk as ft

HELD_OUT_ONE_IN = 10        # of the operand pairs with a two-digit operand
DOC_HELD_OUT_ONE_IN = 100   # of the documents


def checksum(text):
    return zlib.crc32(text.encode())


def pair_held_out(op, a, b):
    """True where `a op b` is kept for the evaluation.  Single-digit tables are
    never held out: they are facts to be learnt."""
    return max(a, b) >= 10 and checksum(f"{a}{op}{b}") % HELD_OUT_ONE_IN == 0


def doc_text(doc):
    return "".join(text for _, text in doc)


def doc_held_out(doc):
    return checksum(doc_text(doc)) % DOC_HELD_OUT_ONE_IN == 0


def tidy(sentence):
    """Capital first letter, and "an" before a vowel."""
    sentence = re.sub(r"\b([Aa]) (?=[aeiou][a-z])", r"\1n ", sentence)
    for i, c in enumerate(sentence):
        if c.isalpha():
            return sentence[:i] + c.upper() + sentence[i + 1:]
        if c.isdigit():
            break
    return sentence


def article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


# --- stories -----------------------------------------------------------------

def pronouns(he, prefix=""):
    him, his, self_ = ("him", "his", "himself") if he == "he" else ("her", "her", "herself")
    return {prefix + "he": he, prefix + "him": him, prefix + "his": his,
            prefix + "He": he.capitalize(), prefix + "His": his.capitalize(),
            prefix + "himself": self_}


def person(rng, taken=()):
    """(name, kind, pronoun); people and animals both take part in stories."""
    if rng.random() < 0.35:
        kind, he = rng.choice(st.PEOPLE)
    else:
        kind, he = rng.choice(st.ANIMALS), rng.choice(["he", "she"])
    names = st.NAMES_SHE if he == "she" else st.NAMES_HE
    return rng.choice([n for n in names if n not in taken]), kind, he


def story_fields(rng, kind=None, name=None):
    hero, hero_kind, he = person(rng)
    if kind:
        hero_kind = kind
        he = dict(st.PEOPLE).get(kind, he)
        hero = rng.choice(st.NAMES_SHE if he == "she" else st.NAMES_HE)
    if name:
        hero = name
        he = "she" if name in st.NAMES_SHE else "he"
    friend, friend_kind, f_he = person(rng, taken=(hero,))
    while friend_kind == hero_kind:
        friend, friend_kind, f_he = person(rng, taken=(hero,))
    spots = rng.sample(st.SPOTS, 2)
    sights = rng.sample(st.SIGHTS, 2)
    hobby, hobbied = rng.choice(st.HOBBIES)
    build, stuff = rng.choice(st.BUILDS)
    skill, skilled = rng.choice(st.SKILLS)
    seed, plant = rng.choice(st.PLANTS)
    when = rng.choice(st.TIMES)
    fields = dict(name=hero, kind=hero_kind, friend=friend, fkind=friend_kind,
                  adj=rng.choice(st.ADJECTIVES), home=rng.choice(st.HOMES),
                  place=rng.choice(st.PLACES), when=when, whenl=when[0].lower() + when[1:],
                  hobby=hobby, hobbied=hobbied, colour=rng.choice(st.COLOURS),
                  thing=rng.choice(st.THINGS), food=rng.choice(st.FOODS), spot=spots[0],
                  spot2=spots[1], trap=rng.choice(st.TRAPS), shelter=rng.choice(st.SHELTERS),
                  sight=sights[0], sight2=sights[1], build=build, stuff=stuff, skill=skill,
                  skilled=skilled, seed=seed, plant=plant)
    fields.update(pronouns(he))
    fields.update(pronouns(f_he, "f_"))
    return fields


def story(rng, kind=None, name=None, short=False):
    """A story as text, and its fields for questions about it."""
    fields = story_fields(rng, kind, name)
    plot = rng.choice(sorted(st.PLOTS))
    fields["plot"] = plot
    frames = [rng.choice(st.OPENINGS)]
    habits = [h for h in st.HABITS if "{friend}" not in h or plot == "quarrel"]
    if not short and rng.random() < 0.6:
        frames.append(rng.choice(habits))
    steps = st.PLOTS[plot]
    frames += [rng.choice(step) for step in (steps[:4] if short else steps)]
    if not short:
        frames.append(rng.choice(st.ENDINGS))
    return " ".join(tidy(f.format(**fields)) for f in frames), fields


def story_question(rng, text, f):
    """A question whose answer stands in the story: (question, answer, short)."""
    kinds = ["name", "kind"]
    if f"{f['friend']} the {f['fkind']}" in text:
        kinds.append("friend")
    if f"{f['colour']} {f['thing']}" in text:
        kinds.append("thing")
    what = rng.choice(kinds)
    question = rng.choice(ft.STORY_QUESTIONS[what]).format(**f)
    full, short = {
        "name": ("The story is about {name}.", f["name"]),
        "kind": ("{name} is a {kind}.", article(f["kind"])),
        "friend": ("{friend} is a {fkind}.", article(f["fkind"])),
        "thing": ("The {thing} is {colour}.", f["colour"]),
    }[what]
    return question, tidy(full.format(**f)), short


# --- questions: each function gives (question, full answer, bare answer) ------

def table_question(rng):
    table, questions, answers = rng.choice(ft.TABLE_TOPICS)
    k, v = rng.choice(table)
    fields = dict(k=k, v=v, K=k[0].upper() + k[1:])
    return tidy(rng.choice(questions).format(**fields)), tidy(rng.choice(answers).format(**fields)), v


def opposite_question(rng):
    """The opposites in both directions."""
    questions, answers = ft.TABLE_TOPICS[1][1:]
    k, v = rng.choice(ft.OPPOSITES)
    if rng.random() < 0.5 and k not in ("day",):
        k, v = v, k
    return rng.choice(questions).format(k=k), rng.choice(answers).format(k=k, v=v), v


def kind_question(rng):
    k, v = rng.choice(ft.KIND_OF)
    if rng.random() < 0.5:
        question = rng.choice(["What is {k}?", "What kind of thing is {k}?", "What sort of thing is {k}?"])
        k = k if k[0].isupper() else article(k)
        return question.format(k=k), tidy(f"{k} is a {v}."), v
    other = v if rng.random() < 0.5 else rng.choice(["fruit", "animal", "tool", "flower", "vegetable"])
    k = k if k[0].isupper() else article(k)
    if other == v:
        return tidy(f"Is {k} a {v}?"), tidy(f"yes, {k} is a {v}."), "yes"
    return tidy(f"Is {k} a {other}?"), f"No, {k} is {article(v)}.", "no"


def calendar_question(rng):
    names, what = rng.choice([(ft.DAYS, "day"), (ft.MONTHS, "month")])
    i = rng.randrange(len(names))
    now, after, before = names[i], names[(i + 1) % len(names)], names[i - 1]
    way = rng.randrange(5)
    if way == 0:
        q = rng.choice([f"Which {what} comes after {now}?", f"What {what} comes after {now}?",
                        f"What comes after {now}?", f"Which {what} follows {now}?"])
        return q, f"{after} comes after {now}.", after
    if way == 1:
        q = rng.choice([f"Which {what} comes before {now}?", f"What {what} comes before {now}?",
                        f"What comes before {now}?", f"Which {what} is just before {now}?"])
        return q, f"{before} comes before {now}.", before
    if way == 2 and what == "day":
        q = rng.choice([f"Today is {now}. What day is tomorrow?", f"If today is {now}, what is tomorrow?"])
        return q, f"Tomorrow is {after}.", after
    if way == 3 and what == "day":
        q = rng.choice([f"Today is {now}. What day was yesterday?", f"If today is {now}, what was yesterday?"])
        return q, f"Yesterday was {before}.", before
    period = "week" if what == "day" else "year"
    q = rng.choice([f"What is the {ft.ORDINALS[i]} {what} of the {period}?",
                    f"Which is the {ft.ORDINALS[i]} {what} of the {period}?",
                    f"Name the {ft.ORDINALS[i]} {what} of the {period}."])
    return q, f"The {ft.ORDINALS[i]} {what} of the {period} is {now}.", now


def general_question(rng):
    if rng.random() < 0.3:
        what, v, answer = rng.choice(ft.AMOUNTS)
        return f"How many {what}?", answer, v
    questions, answer, v = rng.choice(ft.GENERAL)
    return rng.choice(questions), answer, v


def letter_question(rng):
    i = rng.randrange(25)
    a, b = chr(65 + i), chr(66 + i)
    if rng.random() < 0.5:
        q = rng.choice([f"Which letter comes after {a}?", f"What letter comes after {a}?",
                        f"What is the next letter after {a}?"])
        return q, f"{b} comes after {a}.", b
    q = rng.choice([f"Which letter comes before {b}?", f"What letter comes before {b}?"])
    return q, f"{a} comes before {b}.", a


# --- numbers -----------------------------------------------------------------

def operand(rng):
    return rng.randrange(100) if rng.random() < 0.8 else rng.randrange(10)


def operands(rng, op, held_out):
    """Operands of `a op b`, from the training or from the held-out pairs."""
    while True:
        if op == "x":
            return rng.randrange(11), rng.randrange(11)
        a, b = operand(rng), operand(rng)
        if op == "-" and b > a:
            a, b = b, a
        if op in "<>" and a == b:
            continue
        if pair_held_out(op, a, b) == held_out:
            return a, b


RESULT = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "x": lambda a, b: a * b}
CALC_FRAMES = {"+": ft.ADD, "-": ft.SUB, "x": ft.MUL}


def sum_question(rng, held_out=False, op=None):
    op = op or rng.choice("+++---x")
    a, b = operands(rng, op, held_out)
    result = RESULT[op](a, b)
    question = rng.choice(CALC_FRAMES[op]).format(a=a, b=b)
    return question, f"{a} {op} {b} = {result}", str(result)


def compare_question(rng, held_out=False):
    a, b = operands(rng, ">", held_out)
    way = rng.randrange(3)
    if way == 0:
        v = max(a, b)
        return rng.choice(ft.BIGGER).format(a=a, b=b), f"{v} is bigger than {min(a, b)}.", str(v)
    if way == 1:
        v = min(a, b)
        return rng.choice(ft.SMALLER).format(a=a, b=b), f"{v} is smaller than {max(a, b)}.", str(v)
    full = f"Yes, {a} is bigger than {b}." if a > b else f"No, {a} is smaller than {b}."
    return rng.choice(ft.IS_BIGGER).format(a=a, b=b), full, "yes" if a > b else "no"


def numbers(values):
    return ", ".join(str(v) for v in values)


def count_question(rng):
    a = rng.randrange(90)
    b = a + rng.randrange(2, 9)
    if rng.random() < 0.3:
        a, b = b, a
    step = 1 if b > a else -1
    listed = numbers(range(a, b + step, step))
    return rng.choice(ft.COUNT).format(a=a, b=b), listed, listed


def next_question(rng):
    step = rng.choice([1, 1, 2, 2, 3, 5, 10, -1, -2])
    first = rng.randrange(10 if step < 0 else 0, 50)
    row = [first + i * step for i in range(5)]
    return rng.choice(ft.NEXT).format(list=numbers(row[:4])), f"{row[4]} comes next.", str(row[4])


def neighbour_question(rng):
    a = rng.randrange(1, 100)
    if rng.random() < 0.6:
        return rng.choice(ft.AFTER).format(a=a), f"{a + 1} comes after {a}.", str(a + 1)
    return rng.choice(ft.BEFORE).format(a=a), f"{a - 1} comes before {a}.", str(a - 1)


def single_number_question(rng):
    way = rng.randrange(3)
    a = rng.randrange(51)
    if way == 0:
        return rng.choice(ft.DOUBLE).format(a=a), f"Double {a} is {2 * a}.", str(2 * a)
    if way == 1:
        return rng.choice(ft.HALF).format(a=2 * a), f"Half of {2 * a} is {a}.", str(a)
    a = rng.randrange(100)
    v = "odd" if a % 2 else "even"
    return rng.choice(ft.PARITY).format(a=a), f"{a} is {v}.", v


def list_question(rng):
    values = rng.sample(range(100), rng.randrange(3, 5))
    if rng.random() < 0.5:
        v = max(values)
        return rng.choice(ft.LARGEST).format(list=numbers(values)), f"The largest is {v}.", str(v)
    listed = numbers(sorted(values))
    return rng.choice(ft.SORT).format(list=numbers(values)), listed, listed


def word_sum_question(rng):
    words = ft.NUMBER_WORDS
    if rng.random() < 0.5:
        a, b = rng.randrange(11), rng.randrange(11)
        return f"What is {words[a]} plus {words[b]}?", f"{words[a]} plus {words[b]} is {words[a + b]}.".capitalize(), words[a + b]
    a, b = sorted((rng.randrange(11), rng.randrange(11)), reverse=True)
    return f"What is {words[a]} minus {words[b]}?", f"{words[a]} minus {words[b]} is {words[a - b]}.".capitalize(), words[a - b]


def word_problem(rng, held_out=False):
    hero, _, he = person(rng)
    friend, _, _ = person(rng, taken=(hero,))
    things = rng.choice(ft.COUNTED)
    while True:
        a, b = rng.randrange(2, 21), rng.randrange(2, 13)
        gain = rng.random() < 0.5
        if not gain and b >= a:
            continue
        op = "+" if gain else "-"
        if held_out == pair_held_out(op, a, b):
            break
    frame = rng.choice(ft.GAIN if gain else ft.LOSS)
    fields = dict(name=hero, friend=friend, a=a, b=b, things=things)
    fields.update(pronouns(he))
    v = RESULT[op](a, b)
    things = things if v != 1 else {"cakes": "cake", "berries": "berry"}.get(things, things[:-1])
    return frame.format(**fields), f"{a} {op} {b} = {v}, so it is {v} {things}.", str(v)


# --- questions about a text just before them -----------------------------------

def people_facts(rng):
    """Facts about one to four people: (text, function that asks about one of them)."""
    values, facts, about_value, answers, about_name = rng.choice(ft.PERSON_FACTS)
    count = rng.choice([1, 2, 2, 3, 3, 4])
    names = rng.sample(st.NAMES_SHE + st.NAMES_HE, count)
    owned = rng.sample(values, count)
    frame = rng.choice(facts)
    text = " ".join(frame.format(n=n, v=v) for n, v in zip(names, owned))

    def ask():
        n, v = rng.choice(list(zip(names, owned)))
        answer = answers[0].format(n=n, v=v)
        if rng.random() < 0.6:
            return rng.choice(about_value).format(n=n), answer, v
        answer = answer if values is ft.TOWN_PLACES else facts[0].format(n=n, v=v)
        return rng.choice(about_name).format(v=v), answer, n
    return text, ask


def people_question(rng):
    text, ask = people_facts(rng)
    asked, answer, bare = ask()
    return f"{text} {asked}", answer, bare


def echo_question(rng):
    words = " ".join(rng.sample(ft.ECHO_WORDS, rng.randrange(1, 5)))
    return rng.choice(ft.ECHO).format(t=words), words, words


def short_story_question(rng):
    text, fields = story(rng, short=True)
    question, full, short = story_question(rng, text, fields)
    return f"{text} {question}", full, short


TOPICS = [(table_question, 20), (opposite_question, 3), (kind_question, 4), (calendar_question, 6),
          (general_question, 6), (letter_question, 2), (sum_question, 30), (compare_question, 6),
          (count_question, 3), (next_question, 3), (neighbour_question, 3),
          (single_number_question, 3), (list_question, 2), (word_sum_question, 2),
          (word_problem, 6), (people_question, 10), (echo_question, 4), (short_story_question, 3)]


def question(rng):
    functions, weights = zip(*TOPICS)
    return rng.choices(functions, weights)[0](rng)


# --- documents -----------------------------------------------------------------

def story_doc(rng):
    text, fields = story(rng)
    if rng.random() < 0.2:
        q, full, _ = story_question(rng, text, fields)
        return [["text", text], ["prompt", f"\nQuestion: {q}\nAnswer:"], ["answer", " " + full]]
    return [["text", text]]


def plain_question_doc(rng):
    """Questions and answers without chat markup, one to four of them."""
    q_label, a_label = rng.choice([("Question:", "Answer:"), ("Question:", "Answer:"), ("Q:", "A:")])
    doc = []
    for i in range(rng.choice([1, 1, 2, 3, 4])):
        q, full, _ = question(rng)
        doc.append(["prompt", ("\n" if i else "") + f"{q_label} {q}\n{a_label}"])
        doc.append(["answer", " " + full])
    return doc


def sums_doc(rng):
    """Lines such as `3 + 4 = 7`."""
    doc = []
    for i in range(rng.randrange(1, 9)):
        _, full, v = sum_question(rng)
        doc.append(["prompt", ("\n" if i else "") + full[:-len(v) - 1]])
        doc.append(["answer", " " + v])
    return doc


def facts_doc(rng):
    """Statements; the frames of the answers as running text."""
    facts = []
    for _ in range(rng.randrange(1, 6)):
        topic = rng.choice([table_question, table_question, opposite_question, calendar_question,
                            general_question, kind_question])
        facts.append(topic(rng)[1])
    return [["text", " ".join(facts)]]


def counting_doc(rng):
    """Rows of numbers, days, months and letters."""
    way = rng.randrange(5)
    if way == 0:
        step = rng.choice([1, 1, 2, 3, 5, 10])
        a = rng.randrange(0, 40, 1 if step == 1 else step)
        row = [str(a + i * step) for i in range(rng.randrange(6, 12))]
    elif way == 1:
        a = rng.randrange(10, 60)
        row = [str(a - i) for i in range(rng.randrange(6, 11))]
    elif way == 2:
        i = rng.randrange(7)
        row = [ft.DAYS[(i + k) % 7] for k in range(7)]
    elif way == 3:
        row = ft.MONTHS[rng.randrange(6):]
    else:
        i = rng.randrange(20)
        row = [chr(65 + k) for k in range(i, min(26, i + rng.randrange(5, 12)))]
    return [["text", ", ".join(row)]]


def chat_doc(rng):
    """One to four turns, sometimes with a system message that asks for short answers."""
    way = rng.random()
    if way < 0.15:
        doc, short = [["system", rng.choice(ft.SHORT_SYSTEM)]], True
    elif way < 0.40:
        doc, short = [["system", rng.choice(ft.FULL_SYSTEM)]], False
    else:
        doc, short = [], False
    for _ in range(rng.choice([1, 1, 1, 1, 2, 2, 3, 4])):
        if not short and rng.random() < 0.3:
            said, answers = rng.choice(ft.SMALL_TALK)
            doc += [["user", rng.choice(said)], ["assistant", rng.choice(answers)]]
        else:
            q, full, bare = question(rng)
            doc += [["user", q], ["assistant", bare if short else full]]
    return doc


def sums_chat_doc(rng):
    """Many sums in one conversation: more practice per token than single ones."""
    doc = []
    for _ in range(rng.randrange(1, 6)):
        q, full, _ = sum_question(rng)
        doc += [["user", q], ["assistant", full]]
    return doc


def numbers_chat_doc(rng):
    """Comparing, counting, rows of numbers: several in one conversation."""
    doc = []
    for _ in range(rng.randrange(1, 6)):
        topic = rng.choice([compare_question, compare_question, count_question, count_question,
                            next_question, neighbour_question, single_number_question])
        q, full, _ = topic(rng)
        doc += [["user", q], ["assistant", full]]
    return doc


def story_chat_doc(rng):
    """A story on request, then perhaps a question about it."""
    doc = [["system", rng.choice(ft.FULL_SYSTEM[:4])]] if rng.random() < 0.3 else []
    if rng.random() < 0.3:
        text, fields = story(rng)
        request = rng.choice(ft.ASK_ANY_STORY)
    else:
        name, kind, _ = person(rng)
        frame = rng.choice(ft.ASK_STORY)
        text, fields = story(rng, kind=kind, name=name if "{name}" in frame else None)
        request = tidy(frame.format(**fields))
    doc += [["user", request], ["assistant", text]]
    if rng.random() < 0.3:
        q, full, _ = story_question(rng, text, fields)
        doc += [["user", q], ["assistant", full]]
    return doc


def people_chat_doc(rng):
    """Several questions about the same people."""
    text, ask = people_facts(rng)
    doc = []
    for i in range(rng.randrange(1, 5)):
        asked, answer, _ = ask()
        doc += [["user", asked if i else f"{text} {asked}"], ["assistant", answer]]
    return doc


def echo_chat_doc(rng):
    """Several requests to repeat words: copying is a skill that all the others use."""
    doc = []
    for _ in range(rng.randrange(1, 5)):
        asked, answer, _ = echo_question(rng)
        doc += [["user", asked], ["assistant", answer]]
    return doc


def memory_chat_doc(rng):
    """The user tells something and asks for it later."""
    name = rng.choice(st.NAMES_SHE + st.NAMES_HE)
    what, values = rng.choice(ft.FAVOURITE)
    value = rng.choice(values)
    told = []
    asked = []
    if rng.random() < 0.7:
        told.append([["user", rng.choice(ft.INTRODUCE).format(n=name)],
                     ["assistant", f"Nice to meet you, {name}!"]])
        asked.append([["user", rng.choice(ft.ASK_NAME)], ["assistant", f"Your name is {name}."]])
    if not told or rng.random() < 0.6:
        frame = rng.choice(ft.TELL_FAVOURITE)
        told.append([["user", frame.format(what=what, v=value, V=value.capitalize())],
                     ["assistant", f"I will remember that you like {value}."]])
        asked.append([["user", rng.choice(ft.ASK_FAVOURITE).format(what=what)],
                      ["assistant", f"Your favourite {what} is {value}."]])
    between = []
    for _ in range(rng.choice([0, 0, 1, 2])):
        q, full, _ = question(rng)
        between.append([["user", q], ["assistant", full]])
    rng.shuffle(told)
    rng.shuffle(asked)
    return [part for turn in told + between + asked for part in turn]


DOCUMENTS = [(story_doc, 12), (plain_question_doc, 16), (sums_doc, 14), (facts_doc, 6), (counting_doc, 4),
             (chat_doc, 40), (sums_chat_doc, 6), (story_chat_doc, 7), (memory_chat_doc, 8),
             (people_chat_doc, 12), (echo_chat_doc, 2), (numbers_chat_doc, 20)]


def documents(seed, held_out=False):
    """An endless stream of documents."""
    rng = random.Random(seed)
    functions, weights = zip(*DOCUMENTS)
    while True:
        doc = rng.choices(functions, weights)[0](rng)
        if doc_held_out(doc) == held_out:
            yield doc


def count_frames():
    """How many different sentence frames and fixed sentences there are."""
    stories = len(st.OPENINGS) + len(st.HABITS) + len(st.ENDINGS)
    stories += sum(len(step) for steps in st.PLOTS.values() for step in steps)
    numeric = sum(len(x) for x in (ft.ADD, ft.SUB, ft.MUL, ft.BIGGER, ft.SMALLER, ft.IS_BIGGER, ft.AFTER,
                                   ft.BEFORE, ft.COUNT, ft.NEXT, ft.DOUBLE, ft.HALF, ft.PARITY,
                                   ft.LARGEST, ft.SORT, ft.GAIN, ft.LOSS))
    asked = sum(len(q) + len(a) for _, q, a in ft.TABLE_TOPICS)
    asked += sum(len(q) + 1 for q, _, _ in ft.GENERAL) + 2 * len(ft.AMOUNTS)
    asked += sum(len(f) + len(q) + len(a) + len(w) for _, f, q, a, w in ft.PERSON_FACTS)
    asked += sum(len(q) for q in ft.STORY_QUESTIONS.values()) + len(ft.ASK_STORY) + len(ft.ASK_ANY_STORY)
    talk = sum(len(said) + len(answers) for said, answers in ft.SMALL_TALK)
    talk += len(ft.INTRODUCE) + len(ft.ASK_NAME) + len(ft.TELL_FAVOURITE) + len(ft.ASK_FAVOURITE) + len(ft.ECHO)
    talk += len(ft.FULL_SYSTEM) + len(ft.SHORT_SYSTEM)
    return {"story": stories, "numbers": numeric, "questions": asked, "talk": talk,
            "all": stories + numeric + asked + talk}


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--count", type=int, default=10)
    ap.add_argument("--held-out", action="store_true")
    ap.add_argument("--frames", action="store_true", help="count the sentence frames and stop")
    args = ap.parse_args()
    if args.frames:
        print(json.dumps(count_frames()))
        return
    stream = documents(args.seed, args.held_out)
    for _ in range(args.count):
        print(json.dumps(next(stream)))


if __name__ == "__main__":
    main()
