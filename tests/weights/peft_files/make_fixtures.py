"""Write the fixtures beside this file: tiny models, adapters of them as PEFT saves them, and the
weights that PEFT's own arithmetic gives. Run it in an environment of its own:

pip install torch==2.13.0 peft==0.21.2 transformers==5.23.0
python tests/weights/peft_files/make_fixtures.py

A folder a case: `adapter_config.json` and `adapter_model.safetensors` by `save_pretrained`, and
`expected.safetensors`, the tensors of the model with the adapter in it that are not the base's.
They are what `merge_and_unload` gives. Where the base ties its head to its embedding that is not
the model that was trained (both are changed, or the old head is lost), so the change is computed
for each of the two apart; every case is checked to have the logits of the unmerged model.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
HEAD = "lm_head.weight"
IDS = torch.tensor([[1, 5, 19, 3, 3, 0, 7, 12]])


def llama(tied: bool) -> LlamaForCausalLM:
    """5 000 weights; no layer is square but q, k, v and o."""
    config = LlamaConfig(
        vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16,
        tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def gpt2() -> GPT2LMHeadModel:
    """Conv1D layers, which are stored (in, out), with biases; the head is the embedding."""
    config = GPT2Config(
        vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=16, bos_token_id=1,
        eos_token_id=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


BASES: dict[str, Callable[[], torch.nn.Module]] = {
    "llama": lambda: llama(False), "tied": lambda: llama(True), "gpt2": gpt2,
}  # fmt: skip
LINEAR = ["q_proj", "k_proj", "up_proj", "down_proj"]
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "lora": ("llama", {"target_modules": LINEAR}),
    "rslora": ("llama", {
        "target_modules": LINEAR, "use_rslora": True,
        "rank_pattern": {r"^model\.layers\.1\.self_attn\.q_proj": 3, "layers.0.mlp.up_proj": 1},
        "alpha_pattern": {r"layers\.[01]\.mlp\.(up|gate)_proj": 5},
    }),
    "dora": ("llama", {"target_modules": LINEAR, "use_dora": True}),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "dora-embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True}),
    "modules-to-save": ("llama", {
        "target_modules": ["q_proj"], "modules_to_save": ["norm", "lm_head"],
    }),
    "resized": ("llama", {
        "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"],
    }),
    "conv1d": ("gpt2", {
        "target_modules": ["c_attn", "c_proj"], "bias": "all", "fan_in_fan_out": True,
    }),
    "conv1d-dora": ("gpt2", {
        "target_modules": ["c_attn", "c_proj"], "bias": "lora_only", "use_dora": True,
    }),
    "lora-bias": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "lora_bias": True}),
    "conv1d-and-head": ("gpt2", {"target_modules": ["c_attn", "c_proj", "lm_head"]}),
    "tied-embedding": ("tied", {"target_modules": ["embed_tokens", "q_proj"]}),
    "tied-together": ("tied", {
        "target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True,
    }),
    "tied-head": ("tied", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "tied-resized": ("tied", {"target_modules": ["embed_tokens", "q_proj"]}),
}  # fmt: skip


def base_of(name: str) -> torch.nn.Module:
    """The base model, the same each time."""
    torch.manual_seed(len(name))
    model = BASES[name]().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def trained(case: str) -> torch.nn.Module:
    """The PEFT model of a case, everything that it trains drawn at random."""
    base, settings = CASES[case]
    model = base_of(base)
    model.config._name_or_path = model.name_or_path = f"tiny/{base}"
    torch.manual_seed(7)
    if case.endswith("resized"):
        model.resize_token_embeddings(23)
    config = LoraConfig(r=2, lora_alpha=3, task_type="CAUSAL_LM", **settings)
    adapted = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in sorted(adapted.named_parameters()):
            if parameter.requires_grad:
                noise = 0.3 * torch.randn_like(parameter)
                parameter.copy_(parameter + noise if "magnitude" in name else noise)
    return adapted


def tied_weights(adapted: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Embedding and head of a tied model, each changed as its own module changes it."""
    found: dict[str, torch.Tensor] = {}
    model = adapted.get_base_model()
    for layer, name in (
        (model.get_input_embeddings(), "model.embed_tokens.weight"),
        (model.get_output_embeddings(), HEAD),
    ):
        weight = layer.weight
        if hasattr(layer, "get_delta_weight"):
            weight = layer.base_layer.weight + layer.get_delta_weight("default")
        found[name] = weight.detach().clone()
    return found


def expected(case: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """The model that the adapter stands for, and all its tensors."""
    base, settings = CASES[case]
    adapted = trained(case)
    with torch.no_grad():
        logits = adapted(IDS).logits
    apart = tied_weights(adapted) if base == "tied" else {}
    if case == "conv1d-and-head":
        head = adapted.get_base_model().lm_head
        apart = {HEAD: (head.base_layer.weight + head.get_delta_weight("default")).detach(),
                 "transformer.wte.weight": head.base_layer.weight.detach().clone()}  # fmt: skip
    merged = trained(case).merge_and_unload(safe_merge=True)
    tensors = {name: tensor.clone() for name, tensor in merged.state_dict().items()} | apart
    config = merged.config
    config.tie_word_embeddings = not apart or bool(settings.get("ensure_weight_tying"))
    if base == "llama":
        config.tie_word_embeddings = False
    whole = type(merged)(config).eval()
    whole.load_state_dict(tensors)
    with torch.no_grad():
        torch.testing.assert_close(whole(IDS).logits, logits, rtol=1e-4, atol=1e-5)
    if config.tie_word_embeddings:
        del tensors[HEAD]
    return adapted, tensors


def main() -> None:
    """Write all."""
    warnings.simplefilter("ignore")
    for folder in HERE.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    for name in BASES:
        base_of(name).save_pretrained(HERE / name)
        (HERE / name / "generation_config.json").unlink()
    for case, (base, _) in CASES.items():
        adapted, tensors = expected(case)
        folder = HERE / case
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink()
        config = json.loads((folder / "adapter_config.json").read_text())
        kept = {k: v for k, v in config.items() if v not in (None, {}, [])}
        (folder / "adapter_config.json").write_text(json.dumps(kept, indent=2) + "\n")
        before = base_of(base).state_dict()
        changed = {
            name: tensor.contiguous()
            for name, tensor in tensors.items()
            if name not in before or not torch.equal(before[name], tensor)
            or (name == HEAD and base != "llama")
        }  # fmt: skip
        save_file(changed, folder / "expected.safetensors")
        print(case, sum(file.stat().st_size for file in folder.iterdir()))


if __name__ == "__main__":
    main()
