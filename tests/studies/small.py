"""A tiny real study, and running it: what tests of the runner, of verification and of the search share."""

import textwrap
from pathlib import Path

from fusionjax.studies.claims import Claims, open_storage
from fusionjax.studies.folder import StudyFolder
from fusionjax.studies.plan import Plan, make_plan
from fusionjax.studies.runner import Runner, check

BASE = """
    data: {demo_shop: {products: 80, users: 60, queries: 40}}
    model: {dim: 16, entity: {dim: 16}, product: {sources: [entity]}, user: {history: 8, layers: 1, heads: 2}}
    objectives:
      link_prediction: {batch_size: 16, negatives: {number: 8}}
      alignment: {weight: 0}
      query_product: {weight: 0}
      next_product: {batch_size: 16}
    train: {steps: 6, log_every: 1, validate_every: 3, checkpoint_every: 3}
    evaluation: {batch_size: 64}
"""
STUDY = """
    question: Does it help?
    base: base.yaml
    axes:
      graph: [real, tails_shuffled]
    design: grid
    reference: real
    seeds: [0, 1]
    tasks: {recommendation: [ndcg@10], link_prediction: [mrr]}
    segments: [popularity]
    baselines: false
"""


def write(folder: Path, study: str = STUDY, base: str = BASE) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "base.yaml").write_text(textwrap.dedent(base), encoding="utf-8")
    (folder / "study.yaml").write_text(textwrap.dedent(study), encoding="utf-8")
    return folder


def run(home: Path, workers: int = 2, retry: bool = False) -> tuple[list[str], Plan]:
    """What a worker said, and the plan it followed."""
    said: list[str] = []
    plan, folder = make_plan(home), StudyFolder(home)
    check(plan, folder)
    runner = Runner(plan, folder, Claims(home.name, open_storage(None, folder.runs)), workers, said.append, retry)
    runner.run(lambda _: None)
    return said, plan


def stored(home: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((home / "scores").rglob("*")) if file.is_file()}
