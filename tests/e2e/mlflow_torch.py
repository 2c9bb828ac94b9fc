"""Lightning and Transformers on CPU that log by MLflow; run by a Python that has them: URL, scratch, framework."""

import importlib.util
import os
import sys

url, scratch, framework = sys.argv[1:4]
missing = [name for name in ("torch", framework) if importlib.util.find_spec(name) is None]
if missing:
    print("not installed:", *missing)
    sys.exit()
os.environ |= {"MLFLOW_TRACKING_URI": url, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}

import mlflow  # noqa: E402
import torch  # noqa: E402
from mlflow import MlflowClient  # noqa: E402

torch.manual_seed(3)
torch.set_num_threads(1)
experiment = mlflow.set_experiment(f"deep {framework}")
client = MlflowClient()
EPOCHS, BATCHES = 3, 4


def points(run_id, name):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def with_lightning():
    import lightning
    from lightning.pytorch.loggers import MLFlowLogger
    from torch.utils.data import DataLoader, TensorDataset

    class Line(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters({"width": 3})
            self.layer = torch.nn.Linear(3, 1)

        def forward(self, batch):
            return self.layer(batch)

        def training_step(self, batch, _):
            loss = torch.nn.functional.mse_loss(self(batch[0]), batch[1])
            self.log("loss", loss, on_step=True, on_epoch=False)
            self.log("epoch_loss", loss, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    inputs = torch.randn(8 * BATCHES, 3)
    batches = DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=8)
    quiet = {
        "max_epochs": EPOCHS,
        "accelerator": "cpu",
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": scratch,
    }
    logger = MLFlowLogger(experiment.name, run_name="logger", tracking_uri=url, log_model=True)
    lightning.Trainer(logger=logger, **quiet).fit(Line(), batches)
    run = client.get_run(logger.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "logger"), run.info
    assert run.data.params["width"] == "3", run.data.params
    seen = points(logger.run_id, "loss")
    assert [step for step, _ in seen] == list(range(EPOCHS * BATCHES)), seen
    assert len(points(logger.run_id, "epoch_loss")) == EPOCHS
    last = f"epoch={EPOCHS - 1}-step={EPOCHS * BATCHES}"
    files = {file.path for file in client.list_artifacts(logger.run_id, last)}
    assert f"{last}/{last}.ckpt" in files, files

    mlflow.pytorch.autolog(checkpoint=False)
    model = Line()
    with mlflow.start_run() as auto:
        lightning.Trainer(logger=False, enable_checkpointing=False, **quiet).fit(model, batches)
    assert len(points(auto.info.run_id, "epoch_loss")) == EPOCHS
    assert client.get_run(auto.info.run_id).data.params["optimizer_name"] == "SGD"
    version = mlflow.register_model(f"runs:/{auto.info.run_id}/model", "a line")
    client.set_registered_model_alias("a line", "champion", version.version)
    loaded = mlflow.pytorch.load_model("models:/a line@champion")
    with torch.no_grad():
        assert torch.equal(loaded(inputs), model(inputs))


def with_transformers():
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    tiny = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 8}
    model = BertForSequenceClassification(BertConfig(vocab_size=32, max_position_embeddings=16, **tiny))
    words = torch.randint(0, 32, (4 * BATCHES, 6))
    rows = [{"input_ids": row, "labels": int(row[0] > 15)} for row in words]
    arguments = TrainingArguments(
        output_dir=scratch,
        run_name="tiny",
        report_to="mlflow",
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=4,
        logging_steps=1,
        eval_strategy="epoch",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows).train()
    mlflow.end_run()
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "tiny"), run.info
    assert run.data.params["hidden_size"] == "8", run.data.params
    assert len(run.data.params) > 100, "long configurations arrive whole"
    names = {"loss" if name in ("loss", "train/loss") else name for name in run.data.metrics}
    assert {"loss", "eval_loss", "train_loss"} <= names, run.data.metrics
    seen = points(run.info.run_id, "loss")
    assert [step for step, _ in seen] == list(range(1, EPOCHS * BATCHES + 1)), seen
    assert [step for step, _ in points(run.info.run_id, "eval_loss")] == [BATCHES * epoch for epoch in (1, 2, 3)]


{"lightning": with_lightning, "transformers": with_transformers}[framework]()
print("all is well with", mlflow.__version__, framework)
