"""Continues a prompt with a model: a binding of a recipe, a folder, or an artifact of the store.

Example: ``sample(find_model("out/student", Path.cwd()), "volcano:", None, 64)``.
"""

from __future__ import annotations

import re
from pathlib import Path

from recipelang.diagnostics import RecipeError, fault
from recipelang.run.values import ModelValue
from recipelang.types import is_partial

__all__ = ["find_model", "sample"]

PREFIX = re.compile(r"[0-9a-f]{4,64}")


def find_model(name: str, here: Path) -> ModelValue:
    """The model that a text names: ``FILE.recipe:NAME``, a folder or GGUF file, a binding of a
    recipe in this folder, or the start of an artifact's id.

    Raises RecipeError E0859 where nothing, or more than one thing, has that name.
    """
    file, colon, binding = name.rpartition(":")
    if colon and file.endswith(".recipe"):
        return _binding(here / file, binding)
    if (here / name / "adapter_config.json").exists() and not (
        here / name / "config.json"
    ).exists():
        raise fault(
            "E0859", f"`{name}` is an adapter without its model",
            help="name the binding of the fine-tuned model: `FILE.recipe:NAME`",
        )  # fmt: skip
    if (here / name).exists():
        from recipelang.weights.metadata import open_model

        return ModelValue(open_model(name, folder=here), "")
    holders = _recipes_with(name, here)
    if len(holders) == 1:
        return _binding(holders[0], name)
    if len(holders) > 1:
        files = " or ".join(f"`{p.name}:{name}`" for p in holders)
        raise fault("E0859", f"several recipes here bind `{name}`", help=f"write {files}")
    if PREFIX.fullmatch(name):
        return _stored(name, here)
    raise fault(
        "E0859", f"there is no model `{name}`",
        help="name a published folder, a binding (`FILE.recipe:NAME`), or the start of an "
        "artifact's id",
    )  # fmt: skip


def _recipes_with(name: str, here: Path) -> list[Path]:
    """The recipes of a folder whose lock has a step of that name."""
    from recipelang.lineage.lockfile import read_lock

    found: list[Path] = []
    for path in sorted(here.glob("*.recipe.lock")):
        try:
            steps = read_lock(path).steps
        except RecipeError:
            continue
        recipe = path.with_name(path.name.removesuffix(".lock"))
        if name in steps and recipe.is_file():
            found.append(recipe)
    return found


def _binding(recipe: Path, name: str) -> ModelValue:
    """A binding whose result is in the store, as the recipe's lock says."""
    from recipelang.checking import check
    from recipelang.lineage.lockfile import lock_path, read_lock
    from recipelang.plan.make import make_plan
    from recipelang.run.opening import open_value
    from recipelang.run.running import check_targets
    from recipelang.run.session import Session
    from recipelang.store import Store
    from recipelang.store.view import View

    lock = read_lock(lock_path(recipe))
    checked = check(recipe, dict(lock.params))
    if checked.program is None:
        raise RecipeError(*checked.sink)
    check_targets(checked.program, (name,))
    store = Store.open_for(recipe)
    view = View(store, lock, recipe.absolute().parent)
    plan = make_plan(checked.program, (name,), view)
    step = plan.step(checked.program.roots((name,))[-1])
    if step.artifact is None or step.action == "run":
        raise fault(
            "E0859", f"`{name}` is not built as the recipe stands",
            help=f"build it: `recipe run {recipe.name} {name}`",
        )  # fmt: skip
    session = Session(plan, store, view, lambda event: None, "")
    session.ids.update({s.node: s.artifact for s in plan.steps if s.artifact is not None})
    value = open_value(session, step.node)
    if not isinstance(value, ModelValue) or is_partial(step.node.type):
        raise fault("E0859", f"`{name}` is not a model", help="name a binding that is one")
    return value


def _stored(prefix: str, here: Path) -> ModelValue:
    from recipelang.store import Store
    from recipelang.weights.stored import StoredModel

    store = Store.open_for(here)
    found = [a for a in store.artifacts(prefix) if (m := store.manifest(a)) and m.kind == "model"]
    if len(found) != 1:
        say = f"{len(found)} models" if found else "no model"
        verb = "start" if found else "starts"
        raise fault(
            "E0859", f"{say} of the store `{store.root}` {verb} with `{prefix}`",
            help="`recipe log` lists artifacts; a model kept as an adapter is named by its "
            "binding, `FILE.recipe:NAME`",
        )  # fmt: skip
    manifest = store.manifest(found[0])
    assert manifest is not None
    return ModelValue(StoredModel.open(manifest, store.object_path), found[0])


def sample(model: ModelValue, prompt: str, backend: str | None, tokens: int) -> str:
    """The greedy continuation of a prompt, at most ``tokens`` tokens. Raises RecipeError E0801,
    E0803.
    """
    from recipelang.backend import find
    from recipelang.data.encoder import encoder_of
    from recipelang.run.training import precision_of

    chosen = find(backend)
    checkpoint = model.checkpoint
    why = chosen.refuse(checkpoint.config, checkpoint.tensors)
    if why:
        raise fault("E0803", f"the {chosen.name} backend cannot run the model: {why}")
    encoder = encoder_of(checkpoint.files, checkpoint.config)
    loaded = chosen.load(checkpoint, precision_of(None, model))
    try:
        ids = encoder.prompt(prompt) or [encoder.eos or 0]
        found = loaded.decode([ids], max_tokens=tokens, stop=encoder.stops)
    finally:
        loaded.close()
    return encoder.text(found[0])
