"""The chats of Samples/chat against transformers' apply_chat_template.

The templates of Samples/chat are our own, since those of Llama may not be handed on and none is
needed: each writes what the one of its family writes. Here the committed texts are made again, and
the one upstream template that comes with a Python package is put beside ours. `CHAT_TEMPLATES`
names a folder with more of them, as `make_data_samples.py --compare` takes it.
"""

import json
import os
import pathlib

import gguf
import make_data_samples
import pytest


def test_the_golden_texts_are_what_transformers_makes():
    committed = json.loads((make_data_samples.CHAT / "conversations.json").read_text())
    assert committed == make_data_samples.golden()
    assert all(len(texts) == 48 for texts in committed["texts"].values())


def test_smollm2s_own_template_writes_what_ours_does(smollm2):
    template = gguf.GGUFReader(smollm2).fields["tokenizer.chat_template"].contents()
    assert template != make_data_samples.templates()["smollm2"]
    assert make_data_samples.compare("smollm2", template) == 2000


def test_a_template_that_differs_is_seen():
    template = make_data_samples.templates()["qwen2.5"]
    with pytest.raises(AssertionError):
        make_data_samples.compare("qwen2.5", template.replace("Alibaba Cloud.", "Alibaba Cloud"))


@pytest.mark.skipif("CHAT_TEMPLATES" not in os.environ, reason="no upstream templates are named")
def test_upstreams_templates_write_what_ours_do():
    for path in pathlib.Path(os.environ["CHAT_TEMPLATES"]).glob("*.jinja"):
        name = path.name.removesuffix(".jinja").split("#")[0]
        assert make_data_samples.compare(name, path.read_text()) > 500
