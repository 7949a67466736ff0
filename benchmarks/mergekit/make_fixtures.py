"""Record what mergekit makes of every case: run with the Python of an environment that has it.

See README.md beside this file. It writes, into tests/merging/fixtures/:

- models.safetensors: the tiny models, each tensor as MODEL/NAME;
- outputs.safetensors: a vector of float32 a case: the result's tensors in order of name, each
  flattened in C order;
- masks.safetensors: for cases with `masks`, which entries mergekit drew to be kept, in the order of
  the output: bit i of a byte for input i of those with a mask; for cases with `probabilities` under
  CASE/probability what it drew with, one row an input;
- record.json: versions, the tensors of a result by its number of layers, and for each case that
  number and the digest of its configuration.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mergekit.merge_methods import generalized_task_arithmetic as task_vectors
from mergekit.scripts.multimerge import main as mergekit_multi
from mergekit.scripts.run_yaml import main as mergekit_yaml
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.mergekit.cases import Case, load_cases  # noqa: E402
from benchmarks.mergekit.models import family, write_model  # noqa: E402

SEED = "20"


OPTIONS = ["--no-copy-tokenizer", "--no-write-model-card", "--random-seed", SEED, "--quiet"]


def main() -> None:
    """Run every case and write the fixtures."""
    torch.set_num_threads(1)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    models = family()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, tensors in models.items():
            write_model(Path(name), name, tensors)
        outputs, masks, record = record_cases(load_cases())
    write(models, outputs, masks, record)


def record_cases(cases: list[Case]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Outputs and masks by case, and what record.json says of them."""
    outputs: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    tensors: dict[str, list[str]] = {}
    record: dict[str, Any] = {}
    for case in cases:
        print(case.name, flush=True)
        draws = Draws()
        with recording(draws):
            result, layers = run(case)
        names = tensors.setdefault(str(layers), sorted(result))
        outputs[case.name] = flat(result, names)
        record[case.name] = {"digest": case.digest, "layers": layers}
        if case.masks:
            kept, probabilities = draws.arrays({n: result[n].size for n in names})
            masks[case.name] = kept
            if case.probabilities:
                masks[case.name + "/probability"] = probabilities
    return outputs, masks, {"tensors": tensors, "cases": record}


def run(case: Case) -> tuple[dict[str, Any], int]:
    """The result of mergekit-yaml or mergekit-multi, and the layers that its configuration says."""
    config, out = f"{case.name}.yml", Path(f"out-{case.name}")
    Path(config).write_text(case.mergekit)
    options = [*OPTIONS, "--lora-merge-cache", "baked", "--lora-merge-dtype", "float32"]
    if "\n---\n" in case.mergekit:
        paths = ["--out-path", str(out), "--intermediate-dir", f"stages-{case.name}"]
        mergekit_multi([config, *paths, *options], standalone_mode=False)
    else:
        mergekit_yaml([config, str(out), *options], standalone_mode=False)
    (file,) = out.glob("*.safetensors")
    layers = json.loads((out / "config.json").read_text())["num_hidden_layers"]
    return load_file(file), layers


def flat(tensors: dict[str, Any], names: list[str]) -> Any:
    """The tensors one after the other."""
    assert sorted(tensors) == names
    assert all(x.dtype == np.float32 for x in tensors.values())
    return np.concatenate([tensors[name].reshape(-1) for name in names])


@dataclass
class Draws:
    """What was drawn for each tensor: a (probability, mask) pair an input that has a mask."""

    tensor: str = ""
    pairs: dict[str, list[tuple[Any, Any]]] = field(default_factory=dict)

    def arrays(self, sizes: dict[str, int]) -> tuple[Any, Any]:
        """The kept bits of all tensors in order, and the probabilities, (inputs, elements)."""
        kept, chances = [], []
        for name, size in sizes.items():
            bits = np.zeros(size, np.uint8)
            for i, (_, mask) in enumerate(self.pairs[name]):
                bits |= mask.astype(np.uint8).reshape(-1) << i
            kept.append(bits)
            chances.append(np.stack([chance.reshape(-1) for chance, _ in self.pairs[name]]))
        return np.concatenate(kept), np.concatenate(chances, axis=1)


@contextmanager
def recording(draws: Draws) -> Iterator[None]:
    """Keep every draw of a mask, with the tensor that it is for."""
    method = task_vectors.GeneralizedTaskArithmeticMerge
    merge_group, bernoulli = method.merge_group, torch.bernoulli

    def merge(self: Any, group: Any, /, **parameters: Any) -> Any:
        draws.tensor = group.metadata.name
        return merge_group(self, group, **parameters)

    def draw(probability: Any, *arguments: Any, **options: Any) -> Any:
        mask = bernoulli(probability, *arguments, **options)
        pair = (probability.numpy().copy(), mask.numpy().copy())
        draws.pairs.setdefault(draws.tensor, []).append(pair)
        return mask

    method.merge_group, torch.bernoulli = merge, draw
    try:
        yield
    finally:
        method.merge_group, torch.bernoulli = merge_group, bernoulli


def write(models: Any, outputs: Any, masks: Any, record: Any) -> None:
    """The four files."""
    folder = ROOT / "tests" / "merging" / "fixtures"
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {f"{m}/{name}": x for m, tensors in models.items() for name, x in tensors.items()}
    save_file(inputs, folder / "models.safetensors")
    save_file(outputs, folder / "outputs.safetensors")
    save_file(masks, folder / "masks.safetensors")
    names = ("mergekit", "torch", "transformers", "peft", "numpy")
    made_with = {name: version(name) for name in names} | {"python": platform.python_version()}
    digest = hashlib.sha256((folder / "models.safetensors").read_bytes()).hexdigest()
    text = json.dumps({"made_with": made_with, "models": digest} | record, indent=1)
    (folder / "record.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
