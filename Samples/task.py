"""A small task that no model knows, for comparisons: an invented verb.

What has been "zorped" stands in reverse order, and each letter for another, always the same. Rows
are drawn from a seed.
"""

import json
import random
import string

LETTERS, SEED = 4, 1


def examples(count):
    """Distinct rows of the task."""
    rng, words = random.Random(SEED), {}
    letters = string.ascii_lowercase
    cipher = str.maketrans(letters, "".join(rng.sample(letters, len(letters))))
    while len(words) < count:
        words[" ".join(rng.sample(letters, LETTERS))] = None
    return [{"prompt": f"Zorp {word} :", "completion": f" {word[::-1].translate(cipher)}"}
            for word in words]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
