"""Texts that are hard to cut: many scripts, odd characters, long runs; the same for one seed."""

import random
import unicodedata

# First and last characters of scripts, with more weight for those of many models' texts.
SCRIPTS = [
    (0x61, 0x7A, 30), (0x41, 0x5A, 4), (0xC0, 0x24F, 6), (0x370, 0x3FF, 2), (0x400, 0x4FF, 5),
    (0x531, 0x587, 1), (0x5D0, 0x5EA, 2), (0x620, 0x64A, 3), (0x900, 0x97F, 2), (0x980, 0x9FE, 1),
    (0xB80, 0xBFA, 1), (0xE01, 0xE5B, 2), (0x1100, 0x11FF, 1), (0x10A0, 0x10FF, 1),
    (0x1E00, 0x1FFE, 2), (0x3041, 0x30FF, 4), (0x4E00, 0x9FFF, 6), (0xAC00, 0xD7A3, 3),
    (0x1D400, 0x1D7FF, 1), (0x10330, 0x1034A, 1), (0x20000, 0x2A6DF, 1), (0xF900, 0xFAD9, 1),
    (0xFB00, 0xFB4F, 1), (0xFF01, 0xFFEE, 1),
]
SPACES = [" "] * 40 + ["  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n", "\n ", "\u00a0", "\u3000",
                       "\u2028", "\x0b", "\x85", "\u2009", "    ", "\n\n\n\n", "\t\t", "\r"]
MARKS = [chr(c) for c in (*range(0x300, 0x34F), 0x5B0, 0x64B, 0x93C, 0x94D, 0xE31, 0x20DD, 0x302A,
                          0x3099, 0x309A, 0xFE0F, 0x1D165)]
ODD = [*map(chr, range(0x20)), "\x7f", "\xad", "\u200b", "\u200d", "\u200e", "\u2060", "\ufeff",
       "\ufffd", "\ufffe", "\uffff", "\U000e0041", "\U0010ffff", "\ue000", "\U000f0000", "\u0378"]
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡¿«»…—–“”„。、！？・「」،؛।§¶†‡€£¥©®™±×÷√∞≠≤→⇒■▁Ġ")
EMOJI = ["👍🏽", "👨‍👩‍👧", "🎉", "🇩🇪", "❤️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "☺", "🤦‍♂️"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'ſ", "’s"]
NUMBERS = list("0123456789" * 5 + "٣٤०१½²Ⅷ①〇𝟘")
CODE = ["def f(x):\n    return x**2  # comment\n",
        "for (int i = 0; i < n; ++i) {\n\t\ta[i] = b;\n}",
        "https://example.org/a?b=c&d=%20#e",
        "{\"key\": [1, 2.5e-3, null], \"é\": true}", "</p><br/>",
        "x != y && !z || w >= 0xFF", "C:\\path\\to\\file.txt", "user@example.com", "$HOME/*.swift"]
SPECIAL = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<mask>", "NEW",
           "<|begin_of_text|>", "<0x41>", "<0xE2>", "<|im_start"]


def is_known(character):
    """Whether Python's version of Unicode has the character.

    Oniguruma of Debian 12 is of the same, 14.0; that of the library knows later characters, too.
    """
    return unicodedata.category(character) != "Cn"


class Texts:
    """Makes texts out of a seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.weights = [weight for _, _, weight in SCRIPTS]
        # Words come again, the frequent ones often.
        self.known = [self.new_word() for _ in range(4000)]

    def new_word(self):
        first, last, _ = self.random.choices(SCRIPTS, self.weights)[0]
        word = ""
        for _ in range(min(14, int(self.random.expovariate(0.22)) + 1)):
            character = chr(self.random.randint(first, last))
            if is_known(character):
                word += character
            if self.random.random() < 0.02:
                word += self.random.choice(MARKS)
        kind = self.random.random()
        return word.upper() if kind < 0.05 else word.capitalize() if kind < 0.2 else word

    def word(self):
        rank = int(self.random.paretovariate(0.9)) - 1
        return self.known[rank] if rank < len(self.known) else self.new_word()

    def part(self):
        pick = self.random.random
        choice = self.random.choice
        kind = pick()
        if kind < 0.80:
            return self.word() + choice(SPACES)
        if kind < 0.87:
            return choice(PUNCTUATION) * choice([1, 1, 1, 2, 3]) + choice(["", " "])
        if kind < 0.91:
            return "".join(choice(NUMBERS) for _ in range(self.random.randint(1, 8)))
        if kind < 0.935:
            return choice(CONTRACTIONS)
        if kind < 0.955:
            return choice(EMOJI)
        if kind < 0.965:
            return choice(ODD)
        if kind < 0.975:
            return choice("aeoAEO가カ") + "".join(
                choice(MARKS) for _ in range(self.random.randint(1, 5)))
        if kind < 0.985:
            return choice(CODE)
        if kind < 0.998:
            return choice(["", " ", "  "]) + choice(SPECIAL) + choice(["", " ", "\n"])
        return choice([" ", "\n", "a", "ab", "-", "é", "\u0301", "👍", "\t", "1", "語"]) * (
            self.random.randint(20, 600))

    def short(self):
        """A text of a few parts."""
        return "".join(self.part() for _ in range(self.random.randint(0, 12)))

    def long(self, byte_count):
        """A text of at least so many bytes."""
        parts, count = [], 0
        while count < byte_count:
            parts.append(self.part())
            count += len(parts[-1].encode())
        return "".join(parts)
