"""The same loader inside Lightning, Accelerate and the Hugging Face Trainer: interrupted and resumed, the rows are those of an uninterrupted run.

pip install lightning accelerate transformers
"""

import pytest
import torch
from torch import nn

import gristmill
from tests.storage.stream.helpers import write_rows

BATCH, STOP, STEPS = 10, 7, 20  # 200 of 240 rows; interrupted inside the epoch


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "a.parquet", range(240))
    return folder


def loader_of(rows):
    return gristmill.stream(rows, columns=["id", "x"], global_batch_size=BATCH, seed=3, rank=0, world_size=1, threads=1)


@pytest.fixture(scope="module")
def expected(rows):
    """The ids of each step of an uninterrupted run."""
    return [batch["id"].tolist() for batch in loader_of(rows)][:STEPS]


def loss_of(model, batch):
    return (model(batch["x"].unsqueeze(1)) - batch["x"].unsqueeze(1)).square().mean() / 1e4


def test_lightning(rows, expected, tmp_path):
    lightning = pytest.importorskip("lightning", reason="Lightning isn't installed: pip install lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.seen = nn.Linear(1, 1), []

        def training_step(self, batch, _number):
            self.seen.append(batch["id"].tolist())
            return loss_of(self.model, batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    def trainer(steps):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        return lightning.Trainer(max_steps=steps, default_root_dir=tmp_path, enable_checkpointing=False, **quiet)

    first = Module()
    interrupted = trainer(STOP)
    interrupted.fit(first, loader_of(rows))
    interrupted.save_checkpoint(tmp_path / "checkpoint.ckpt")
    assert first.seen == expected[:STOP]
    second = Module()
    trainer(STEPS).fit(second, loader_of(rows), ckpt_path=tmp_path / "checkpoint.ckpt")
    assert second.seen == expected[STOP:]


def test_accelerate(rows, expected, tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="Accelerate isn't installed: pip install accelerate")

    def run(steps, resume):
        accelerator = accelerate.Accelerator(cpu=True)
        loader = loader_of(rows)  # shares out the rows itself: it is not prepared
        model = nn.Linear(1, 1)
        model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1e-3))
        accelerator.register_for_checkpointing(loader)
        if resume:
            accelerator.load_state(tmp_path / "state")
        seen = []
        for batch in loader:
            accelerator.backward(loss_of(model, batch))
            optimizer.step()
            optimizer.zero_grad()
            seen.append(batch["id"].tolist())
            if loader.step == steps:
                break
        accelerator.save_state(tmp_path / "state")
        return seen

    assert run(STOP, resume=False) == expected[:STOP]
    assert run(STEPS, resume=True) == expected[STOP:]


def test_hugging_face_trainer(rows, expected, tmp_path):
    pytest.importorskip(
        "accelerate", reason="Accelerate, which the Trainer needs, isn't installed: pip install accelerate"
    )
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed: pip install transformers")
    import json

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = nn.Linear(1, 1), []

        def forward(self, id, x):
            self.seen.append(id.tolist())
            return {"loss": loss_of(self.layer, {"x": x})}

    class Trainer(transformers.Trainer):
        def get_train_dataloader(self):
            return self.train_dataset

    class KeepState(transformers.TrainerCallback):
        """Saves the loader's state beside each checkpoint, and goes on from it."""

        def __init__(self, loader):
            self.loader = loader

        def on_save(self, arguments, state, control, **_):
            (tmp_path / f"checkpoint-{state.global_step}" / "loader.json").write_text(
                json.dumps(self.loader.state_dict())
            )

    def run(steps, resume):
        loader = loader_of(rows)
        if resume:
            loader.load_state_dict(json.loads((resume / "loader.json").read_text()))
        arguments = transformers.TrainingArguments(
            str(tmp_path),
            max_steps=steps,
            save_steps=STOP,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            ignore_data_skip=True,
            logging_strategy="no",
            save_total_limit=None,
        )
        model = Model()
        Trainer(model=model, args=arguments, train_dataset=loader, callbacks=[KeepState(loader)]).train(
            resume_from_checkpoint=str(resume) if resume else None
        )
        return model.seen

    assert run(STOP, resume=None) == expected[:STOP]
    assert run(STEPS, resume=tmp_path / f"checkpoint-{STOP}") == expected[STOP:]
