"""Training on the CPU: tokens a CPU-second of this project's loops beside a bare torch loop on the
same model.

The bare loop is what one writes first: a transformers model, LoRA as a module that adds two small
layers, the mean cross-entropy of all logits, torch's fused AdamW and gradient clipping. Every
measurement is a process of its own; rounds are interleaved (bare, torch, jax, bare, ...), the first
step is not counted, and the figure is the median over steps and rounds of the process's CPU time,
which other load disturbs less than wall time. Ratios are of these medians.

    python -m benchmarks.training --rounds 3 --steps 4
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from recipelang.types import TensorInfo

RANK = 16


@dataclass(frozen=True, slots=True)
class Workload:
    """A llama and a batch. ``adapter``: LoRA of rank 16 on all projections, else every weight is
    trained."""

    config: dict[str, Any]
    dtype: str
    rows: int
    length: int
    adapter: bool
    says: str


def _llama(
    hidden: int, inner: int, layers: int, heads: int, groups: int, vocabulary: int, tied: bool
) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": hidden // heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
    }


WORKLOADS = {
    "adapter": Workload(
        _llama(576, 1536, 30, 9, 3, 49152, True), "BF16", 4, 128, True,
        "LoRA r 16 on all projections of a 135M llama, bf16, 4 x 128 tokens",
    ),
    "full": Workload(
        _llama(384, 1024, 6, 6, 2, 8192, False), "F32", 8, 512, False,
        "every weight of a 15.7M llama, float32, 8 x 512 tokens",
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class RandomModel:
    """A checkpoint of normal draws, standard deviation 0.02; norms are ones."""

    config: Mapping[str, object]
    tensors: Mapping[str, TensorInfo]
    files: Mapping[str, Path | bytes] = field(default_factory=dict[str, "Path | bytes"])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Any:
        """Elements of the flattened tensor."""
        info = self.tensors[name]
        generator = np.random.default_rng(list(name.encode()))
        drawn = generator.standard_normal(info.elements, np.float32) * np.float32(0.02)
        values = np.ones_like(drawn) if len(info.shape) == 1 else drawn
        return values.astype(ml_dtypes.bfloat16 if info.dtype == "BF16" else np.float32)[start:stop]

    def release(self, name: str) -> None:
        """Nothing is kept."""


def model_of(work: Workload) -> RandomModel:
    """The workload's model."""
    from recipelang.weights.initial import table

    return RandomModel(work.config, table(work.config, work.dtype))


def tokens_of(work: Workload, step: int) -> Any:
    """(rows, length) int32, the same for every contender."""
    return (
        np.random.default_rng(step)
        .integers(0, work.config["vocab_size"], (work.rows, work.length))
        .astype(np.int32)
    )


def measured(work: Workload, backend: str, steps: int, done: Callable[[], None]) -> None:
    """Train with one of this project's backends; ``done`` is called after each step."""
    from recipelang.backend import AdapterPlan, OptimizerPlan, TrainingJob, find
    from recipelang.data.batch import Batch
    from recipelang.values import Form

    model = model_of(work)
    supervised = np.ones((work.rows, work.length), np.bool_)
    supervised[:, 0] = False
    ones = np.ones((work.rows, work.length), np.int32)
    positions = np.broadcast_to(np.arange(work.length, dtype=np.int32), ones.shape)
    adapter = None
    if work.adapter:
        adapter = AdapterPlan(
            {
                name: (
                    np.random.default_rng(1).standard_normal((RANK, info.shape[1]), np.float32)
                    * info.shape[1] ** -0.5,
                    np.zeros((info.shape[0], RANK), np.float32),
                )
                for name, info in model.tensors.items()
                if "_proj" in name
            },
            2.0,
        )
    job = TrainingJob(
        model=model,
        objective=Form("cross_entropy"),
        steps=steps,
        lr=[1e-3] * steps,
        adapter=adapter,
        batch=lambda step: Batch(tokens_of(work, step), ones, positions, supervised),
        optimizer=OptimizerPlan(),
        precision="BF16" if work.dtype == "BF16" else "F32",
        trainable=frozenset(model.tensors),
    )
    find(backend).train(job, lambda _: done())


def bare(work: Workload, steps: int, done: Callable[[], None], device: str = "cpu") -> None:
    """The plain torch loop on the same weights and tokens; ``done`` is called after each step."""
    import torch
    import transformers
    from torch import nn

    class Lora(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base = base
            self.a = nn.Parameter(torch.randn(RANK, base.in_features) * base.in_features**-0.5)
            self.b = nn.Parameter(torch.zeros(base.out_features, RANK))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            low = nn.functional.linear(
                nn.functional.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype)
            )
            return self.base(x) + 2.0 * low

    source = model_of(work)
    rest = {key: value for key, value in work.config.items() if key != "model_type"}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**rest))
    weights = {
        n: torch.from_numpy(source.read(n).astype(np.float32)).view(i.shape)
        for n, i in source.tensors.items()
    }
    model.load_state_dict(weights, strict=False)
    model.to(torch.bfloat16 if work.dtype == "BF16" else torch.float32)
    if work.adapter:
        model.requires_grad_(False)
        for layer in model.model.layers:
            for parent in (layer.self_attn, layer.mlp):
                for name, child in list(parent.named_children()):
                    if isinstance(child, nn.Linear):
                        setattr(parent, name, Lora(child))
    model.to(device)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0, fused=True)
    for step in range(steps):
        tokens = torch.from_numpy(tokens_of(work, step)).long().to(device)
        logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done()


def one(contender: str, work: Workload, steps: int, threads: int) -> dict[str, Any]:
    """CPU and wall seconds of each step after the first, and the process's peak memory, in this
    process."""
    if contender != "jax":
        import torch

        torch.set_num_threads(threads)
    marks: list[tuple[float, float]] = []

    def done() -> None:
        marks.append((time.process_time(), time.perf_counter()))

    if contender == "bare":
        bare(work, steps, done)
    else:
        measured(work, contender, steps, done)
    pairs = list(itertools.pairwise(marks))
    return {
        "cpu": [b[0] - a[0] for a, b in pairs], "wall": [b[1] - a[1] for a, b in pairs],
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


def table_of(
    work: Workload, runs: Mapping[str, list[dict[str, Any]]]
) -> dict[str, dict[str, float]]:
    """Contender -> medians, and the ratio of its tokens a CPU-second to the bare loop's."""
    rows: dict[str, dict[str, float]] = {}
    for contender, results in runs.items():
        cpu = statistics.median(x for result in results for x in result["cpu"])
        wall = statistics.median(x for result in results for x in result["wall"])
        rows[contender] = {
            "cpu_seconds_a_step": round(cpu, 3), "wall_seconds_a_step": round(wall, 3),
            "tokens_a_cpu_second": round(work.rows * work.length / cpu, 1),
            "peak_rss_mib": round(max(result["peak_rss_bytes"] for result in results) / 2**20),
        }  # fmt: skip
    for row in rows.values():
        row["ratio"] = round(row["tokens_a_cpu_second"] / rows["bare"]["tokens_a_cpu_second"], 2)
    return rows


def main() -> None:
    """Run the rounds; write results/training.json and results/training.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workload", choices=WORKLOADS, action="append")
    parser.add_argument("--only", choices=("bare", "torch", "jax"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    chosen = given.workload or list(WORKLOADS)
    if given.only:
        print(json.dumps(one(given.only, WORKLOADS[chosen[0]], given.steps, given.threads)))
        return
    contenders = ["bare", "torch", *(["jax"] if importlib.util.find_spec("jax") else [])]
    flags = f"--xla_cpu_multi_thread_eigen={'true' if given.threads > 1 else 'false'}"
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads), "XLA_FLAGS": flags}
    result: dict[str, Any] = {
        "command": f"python -m benchmarks.training --rounds {given.rounds} --steps {given.steps} "
        f"--threads {given.threads}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "workloads": {},
    }
    for name in chosen:
        runs: dict[str, list[dict[str, Any]]] = {contender: [] for contender in contenders}
        for _ in range(given.rounds):
            for contender in contenders:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.training",
                    "--only",
                    contender,
                    "--workload",
                    name,
                    "--steps",
                    str(given.steps),
                    "--threads",
                    str(given.threads),
                ]
                out = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True, env=environment
                ).stdout
                runs[contender].append(json.loads(out.splitlines()[-1]))
        result["workloads"][name] = {
            "what": WORKLOADS[name].says,
            "runs": runs,
            "medians": table_of(WORKLOADS[name], runs),
        }
    write(result)


def write(result: Mapping[str, Any]) -> None:
    """results/training.json and the table of results/training.md."""
    lines = [
        "| training | loop | CPU s a step | tokens a CPU-second | beside the bare loop | peak "
        "MiB |",
        "|---|---|---|---|---|---|",
    ]
    for work in result["workloads"].values():
        for contender, row in work["medians"].items():
            lines.append(
                f"| {work['what']} | {contender} | {row['cpu_seconds_a_step']} | "
                f"{row['tokens_a_cpu_second']} |"
                f" {row['ratio']} | {row['peak_rss_mib']} |"
            )
    lines += ["", f"`{result['command']}`; {result['machine']}, load {result['load']:.1f}.", ""]
    folder = Path(__file__).with_name("results")
    folder.mkdir(exist_ok=True)
    (folder / "training.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "training.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
