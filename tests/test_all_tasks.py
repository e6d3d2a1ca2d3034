"""Each task from end to end on small runs: results, routing by layer, evaluation, repetition, checkpoints."""

import math
from pathlib import Path

import pytest
from checkpoints import write_relative
from command_line import (
    SMALL_BY_TASK,
    CommandLine,
    Json,
    Settings,
    TrainedRuns,
    only_run,
    read_legs,
    read_lines,
    read_object,
    read_path,
    timeless,
    without_model,
)
from refusals import refused
from rows_by_hand import FolderOf

from repro import plugins

TASKS = plugins.names("tasks")
GATES = ("dense", "adaptive")
# Of encoder and decoder together.
LAYERS = {"sst2": 2, "squad": 2, "wmt19": 3, "cnn_dailymail": 3, "wikitext": 2, "soda": 2, "arc": 2}
METRICS: dict[str, tuple[str, bool, set[str]]] = {
    "sst2": ("accuracy", True, set()),
    "squad": ("f1", True, {"exact_match"}),
    "wmt19": ("bleu", True, {"chrf", "length_ratio", "signature"}),
    "cnn_dailymail": ("rouge1", True, {"rouge2", "rougeL", "rougeLsum", "mean_words"}),
    "wikitext": ("perplexity", False, {"word_perplexity", "tokens", "words", "bits_per_token"}),
    "soda": ("perplexity", False, {"word_perplexity", "tokens", "words", "bits_per_token"}),
    "arc": ("acc_norm", True, {"acc", "acc_bytes"}),
}
"""Name, whether higher is better, and what is measured beside it."""
HARDLY_TRAINED = {
    "accuracy": (0.25, 0.75),
    "f1": (0, 30),
    "bleu": (0, 5),
    "rouge1": (0, 30),
    "perplexity": (300, 500),
    "acc_norm": (0, 0.75),
}
"""Metric -> its range after four steps; the perplexity of a uniform guess is the vocabulary, 400."""


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("task", TASKS)
class TestResult:
    def test_keys_and_types(self, trained: TrainedRuns, task: str, gate: str) -> None:
        result = trained(gate, task).result
        assert (result["task"], result["gate"], result["status"]) == (task, gate, "finished")
        assert result["steps"] == (6 if task == "sst2" else 4)
        assert result["epochs"] > 0
        assert type(result["tokens"]) is int
        for key in ("train_seconds", "seconds_per_step", "tokens_per_second", "eval_loss"):
            assert type(result[key]) is float
            assert math.isfinite(result[key])
            assert result[key] > 0
        for key in ("flops", "flops_eval"):
            flops = result[key]
            assert 0 < flops["dense_per_token"] <= flops["per_token"] <= flops["per_token_executed"]
        assert 0 < result["parameters"]["active"] <= result["parameters"]["total"]
        assert (result["parameters"]["active"] == result["parameters"]["total"]) == (gate == "dense")

    def test_metric(self, trained: TrainedRuns, task: str, gate: str) -> None:
        result = trained(gate, task).result
        name, higher, beside = METRICS[task]
        metrics = [result["metric"]] if gate == "dense" else [result["metric"], result["metric_top1"]]
        for metric in metrics:
            assert set(metric) == {"name", "value", "higher_is_better", "count"}
            assert (metric["name"], metric["higher_is_better"]) == (name, higher)
            assert type(metric["value"]) is float
            low, high = HARDLY_TRAINED[name]
            assert low <= metric["value"] <= high
            unit = "features" if task == "wikitext" else "counts"
            assert metric["count"] == result["data"][unit]["validation"]
        assert set(result["metrics"]) == {name, *beside}
        assert result["metrics"][name] == result["metric"]["value"]
        assert (result["metric_top1"] is None) == (gate == "dense")

    def test_perplexity_is_that_of_the_loss(self, trained: TrainedRuns, task: str, gate: str) -> None:
        """Two ways to one number; for the other tasks the loss is no metric."""
        if METRICS[task][0] == "perplexity":
            result = trained(gate, task).result
            assert result["metric"]["value"] == pytest.approx(math.exp(result["eval_loss"]), rel=1e-4)

    def test_metrics_of_one_evaluation_fit_each_other(
        self, trained: TrainedRuns, task: str, gate: str
    ) -> None:
        result = trained(gate, task).result
        metrics, name = result["metrics"], METRICS[task][0]
        if name == "accuracy":
            correct = metrics["accuracy"] * result["metric"]["count"]
            assert correct == round(correct)
        elif name == "acc_norm":
            for share in metrics.values():
                assert share * result["metric"]["count"] == round(share * result["metric"]["count"])
        elif name == "f1":
            assert metrics["exact_match"] <= metrics["f1"]
        elif name == "bleu":
            ratio = metrics["length_ratio"]
            assert metrics["bleu"] <= (100 * math.exp(min(0, 1 - 1 / ratio)) if ratio else 0)
        elif name == "rouge1":
            assert max(metrics["rouge2"], metrics["rougeL"]) <= metrics["rouge1"]
        elif name == "perplexity":
            assert metrics["bits_per_token"] == pytest.approx(math.log2(metrics["perplexity"]))
            words = metrics["perplexity"] ** (metrics["tokens"] / metrics["words"])
            assert metrics["word_perplexity"] == pytest.approx(words, rel=1e-3)

    def test_data(self, trained: TrainedRuns, task: str, gate: str) -> None:
        result = trained(gate, task).result
        data, settings = result["data"], result["config"]["data"]
        assert set(data) == {"source", "counts", "fingerprints", "skipped", "features", "cut"}
        assert data["source"] == "synthetic"
        counts = data["counts"]
        assert counts["train"] == settings["train_samples"]
        assert counts["validation"] == settings["validation_samples"]
        assert 1 <= counts["dev"] <= max(settings["dev_samples"], 8 if task == "wikitext" else 1)
        # Windows and blocks are not rows; those of one split may happen to be as many.
        assert (data["features"] == counts) == (task not in ("squad", "wikitext"))
        assert data["features"]["train"] != counts["train"] or task not in ("squad", "wikitext")
        for split in counts:
            assert type(data["features"][split]) is int
            assert type(data["cut"][split]) is float
            assert 0 <= data["cut"][split] <= 1
            if task in ("squad", "wikitext"):
                assert data["cut"][split] == 0

    def test_options_are_recorded(self, trained: TrainedRuns, task: str, gate: str) -> None:
        run = trained(gate, task)
        options = run.result["config"]["task_options"]
        set_here = {
            key.removeprefix("task."): value
            for key, value in SMALL_BY_TASK[task].items()
            if key.startswith("task.")
        }
        assert set_here.items() <= options.items()
        assert read_object(run.folder / "config.json")["task_options"] == options

    def test_steps(self, trained: TrainedRuns, task: str, gate: str) -> None:
        run = trained(gate, task)
        trunk, cooldown = read_legs(run.folder)
        steps = trunk + cooldown
        path = read_path(run.folder)
        assert [row["step"] for row in path] == list(range(1, run.result["steps"] + 1))
        for leg in (trunk, path):
            assert len({row["loss"] for row in leg}) == len(leg)
        assert all(row["gradient_norm"] > 0 for row in steps)
        assert all(0 < row["tokens"] <= row["padded_tokens"] for row in steps)
        assert sum(row["tokens"] for row in path) == run.result["tokens"]
        budget = run.result["config"]["training"]["batch_tokens"]
        assert (budget is not None) == (task in ("wmt19", "cnn_dailymail"))
        if budget is not None:  # for source and target each
            assert all(row["padded_tokens"] <= 2 * budget for row in steps)

    def test_evaluation_reproduces_the_metric(
        self, cli: CommandLine, trained: TrainedRuns, task: str, gate: str
    ) -> None:
        run = trained(gate, task)
        for inference, metric in (("same", "metric"), ("top-1", "metric_top1")):
            if gate == "dense" and inference == "top-1":
                continue
            evaluated = cli("eval", run.folder, "--gate-at-inference", inference, "--json").json()
            assert evaluated["metric"] == run.result[metric]
            if inference == "same":
                assert evaluated["metrics"] == run.result["metrics"]
                assert evaluated["eval_loss"] == run.result["eval_loss"]
                assert evaluated["routing"] == run.result["routing_eval"]
            else:
                assert evaluated["routing"]["share_by_count"] == [0, 1]
        on_dev = cli("eval", run.folder, "--split", "dev", "--json").json()
        assert on_dev["eval_loss"] == run.result["dev_loss"]
        assert on_dev["data"]["count"] == run.result["data"]["counts"]["dev"]

    def test_same_seed_same_losses(
        self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path, task: str, gate: str
    ) -> None:
        run = trained(gate, task)
        again = cli.train(gate, tmp_path, "--json", task=task).json()
        for name in ("steps.jsonl", "evals.jsonl"):
            ours, expected = (read_legs(folder, name) for folder in (only_run(tmp_path), run.folder))
            for one, other in zip(ours, expected, strict=True):
                assert list(map(timeless, one)) == list(map(timeless, other))
        for key in ("run_id", "metric", "metrics", "metric_top1", "routing", "flops", "data"):
            assert again[key] == run.result[key]
        assert (again["eval_loss"], again["dev_loss"]) == (run.result["eval_loss"], run.result["dev_loss"])


@pytest.mark.parametrize("task", TASKS)
class TestRouting:
    def test_by_layer(self, trained: TrainedRuns, task: str) -> None:
        run = trained("adaptive", task)
        for routing in (run.result["routing"], run.result["routing_eval"]):
            for key in ("share_by_count_per_layer", "load_cv_per_layer", "logit_std_per_layer"):
                assert len(routing[key]) == LAYERS[task]
            for shares in routing["share_by_count_per_layer"]:
                assert sum(shares) == pytest.approx(1)
            none, one, two = routing["share_by_count"]
            assert none == 0
            assert 0 < two < one
            assert routing["mean_experts"] == pytest.approx(one + 2 * two)
        lines = read_lines(run.folder / "routing.jsonl")
        assert all(len(line["share_by_count_per_layer"]) == LAYERS[task] for line in lines)
        assert trained("dense", task).result["routing"] is None

    def test_experts_cost_more_than_the_dense_network(self, trained: TrainedRuns, task: str) -> None:
        dense, adaptive = (trained(gate, task).result for gate in GATES)
        assert dense["flops"]["per_token"] == dense["flops"]["dense_per_token"]
        assert adaptive["flops"]["per_token"] > adaptive["flops"]["dense_per_token"]
        assert adaptive["parameters"]["total"] > dense["parameters"]["total"]
        # The same data in the same first batches.
        assert dense["data"] == adaptive["data"]

    def test_top_1_at_inference_is_another_model(
        self, cli: CommandLine, trained: TrainedRuns, task: str
    ) -> None:
        run = trained("adaptive", task)
        evaluated = cli("eval", run.folder, "--gate-at-inference", "top-1", "--json").json()
        assert evaluated["eval_loss"] != run.result["eval_loss"]


def test_other_translations_with_other_beams(cli: CommandLine, trained: TrainedRuns, tmp_path: Path) -> None:
    """Decoding is an option of the run: another run, with the same training."""
    run = trained("dense", "wmt19")
    result = cli.train("dense", tmp_path, "--json", task="wmt19", settings={"task.beams": 1}).json()
    assert result["config"]["task_options"]["beams"] == 1
    assert result["run_id"] != run.result["run_id"]
    assert result["eval_loss"] == run.result["eval_loss"]


def test_the_other_direction(cli: CommandLine, trained: TrainedRuns, tmp_path: Path) -> None:
    result = cli.train("dense", tmp_path, "--json", task="wmt19", settings={"task.direction": "en-de"}).json()
    assert result["eval_loss"] != trained("dense", "wmt19").result["eval_loss"]
    assert result["data"]["fingerprints"] == trained("dense", "wmt19").result["data"]["fingerprints"]


@pytest.mark.parametrize("task", ["squad", "wikitext"])
def test_batches_by_tokens_for_any_task(cli: CommandLine, tmp_path: Path, task: str) -> None:
    changes = {"training.batch_size": None, "training.batch_tokens": 130}
    assert cli.train("adaptive", tmp_path, task=task, settings=changes).status == 0
    trunk, cooldown = read_legs(only_run(tmp_path))
    assert all(row["padded_tokens"] <= 130 for row in trunk + cooldown)


@pytest.mark.parametrize("task", TASKS)
def test_bf16(cli: CommandLine, trained: TrainedRuns, tmp_path: Path, task: str) -> None:
    """Generation included; and `eval` repeats it."""
    result = cli.train("adaptive", tmp_path, "--precision", "bf16", "--json", task=task).json()
    assert result["eval_loss"] == pytest.approx(trained("adaptive", task).result["eval_loss"], rel=0.05)
    evaluated = cli("eval", only_run(tmp_path), "--json").json()
    assert (evaluated["metric"], evaluated["eval_loss"]) == (result["metric"], result["eval_loss"])


NO_DROPOUT = {
    "squad": ["hidden_dropout_prob", "attention_probs_dropout_prob"],
    "wmt19": ["dropout"],
    "cnn_dailymail": ["dropout"],
    "wikitext": ["resid_pdrop", "embd_pdrop", "attn_pdrop"],
    "soda": ["resid_pdrop", "embd_pdrop", "attn_pdrop"],
    "arc": ["resid_pdrop", "embd_pdrop", "attn_pdrop"],
}


@pytest.mark.parametrize("task", sorted(NO_DROPOUT))
def test_accumulation_is_one_big_batch(cli: CommandLine, tmp_path: Path, task: str) -> None:
    """Although the parts have different numbers of terms; without dropout and the balance loss."""
    settings: dict[str, object] = {f"model.config.{name}": 0.0 for name in NO_DROPOUT[task]}
    settings |= {"training.curriculum": "length", "training.batch_tokens": None, "gate.balance": 0.0}
    settings |= {"training.steps": 3, "task.beams": 1 if "task.beams" in SMALL_BY_TASK[task] else None}
    whole, parts = (
        cli.train("adaptive", tmp_path / name, "--json", task=task, settings=settings | sizes).json()
        for name, sizes in (
            ("whole", {"training.batch_size": 6}),
            ("parts", {"training.batch_size": 2, "training.accumulation": 3}),
        )
    )
    # Three steps: a trunk of four, and one of the cooldown.
    records = [
        trunk + cooldown
        for trunk, cooldown in (read_legs(only_run(tmp_path / name)) for name in ("whole", "parts"))
    ]
    assert [len(steps) for steps in records] == [5, 5]
    for key in ("loss", "gradient_norm"):
        values = [[row[key] for row in steps] for steps in records]
        assert values[1] == pytest.approx(values[0], rel=2e-3 if key == "gradient_norm" else 1e-4)
    assert parts["eval_loss"] == pytest.approx(whole["eval_loss"], rel=1e-4)
    assert (parts["tokens"], parts["epochs"]) == (whole["tokens"], whole["epochs"])


# --- from a checkpoint --------------------------------------------------------------------------


def from_checkpoint(
    cli: CommandLine,
    results: Path,
    task: str,
    gate: str,
    folder: Path,
    data: Path,
    settings: Settings | None = None,
) -> Json:
    """Train two steps from a checkpoint, which brings its own sizes, and evaluate twice."""
    merged = without_model(task) | {"training.steps": 2, **(settings or {})}
    options = ("--model", folder, "--data", data, "--json")
    result = cli.train(gate, results, *options, task=task, settings=merged).json()
    evaluated = cli("eval", only_run(results), "--json").json()
    assert (evaluated["metric"], evaluated["eval_loss"]) == (result["metric"], result["eval_loss"])
    assert result["config"]["model"]["checkpoint"].startswith(f"dir:{folder.name}:")
    return result


class TestPretrained:
    def test_bert_on_squad(
        self, cli: CommandLine, tmp_path: Path, folder_of: FolderOf, bert_folder: Path
    ) -> None:
        data = folder_of("squad")
        result = from_checkpoint(cli, tmp_path / "dense", "squad", "dense", bert_folder, data)
        assert result["metric"]["count"] == 8

    def test_bart_on_cnn_dailymail(
        self, cli: CommandLine, tmp_path: Path, folder_of: FolderOf, bart_folder: Path
    ) -> None:
        data = folder_of("cnn_dailymail")
        result = from_checkpoint(cli, tmp_path / "out", "cnn_dailymail", "dense", bart_folder, data)
        assert result["metric"]["count"] == 8
        assert result["config"]["task_options"]["beams"] == 2

    def test_gpt2_on_soda(
        self, cli: CommandLine, tmp_path: Path, folder_of: FolderOf, gpt2_folder: Path
    ) -> None:
        """Its tokenizer has no padding token, so the end token pads, and is kept so."""
        import transformers

        assert transformers.AutoTokenizer.from_pretrained(gpt2_folder).pad_token is None
        data = folder_of("soda")
        result = from_checkpoint(cli, tmp_path / "out", "soda", "dense", gpt2_folder, data)
        assert result["metric"]["value"] == pytest.approx(math.exp(result["eval_loss"]), rel=1e-4)
        saved = transformers.AutoTokenizer.from_pretrained(only_run(tmp_path / "out") / "model")
        assert saved.pad_token == saved.eos_token

    def test_a_gate_before_the_experts_of_mixtral(
        self, cli: CommandLine, tmp_path: Path, folder_of: FolderOf
    ) -> None:
        """Number and weights of the experts are those of the model unless they are set."""
        experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
        model, data = write_relative(tmp_path / "tiny-mixtral", "mixtral", **experts), folder_of("soda")
        settings = without_model("soda")
        answer = cli.train("adaptive", tmp_path / "refused", "--model", model, task="soda", settings=settings)
        refused(answer, r"'mixtral' model; task 'soda' needs 'gpt2', or give --set model\.backbone=mixtral$")
        own = {"model.backbone": "mixtral", "experts.count": None}
        result = from_checkpoint(cli, tmp_path / "out", "soda", "adaptive", model, data, settings=own)
        assert result["config"]["experts"]["count"] == 4
        assert result["config"]["gate_options"]["combine"] == "renormalised"
        assert result["output_scale"] is None
        assert 1 < result["routing"]["mean_experts"] < 2
        # Two or three experts of each of two layers are idle, 3 * 16 * 24 parameters each.
        idle = result["parameters"]["total"] - result["parameters"]["active"]
        assert 2 * 2 * 1_152 < idle < 3 * 2 * 1_152

    def test_llama_upcycled_into_gated_experts(
        self, cli: CommandLine, tmp_path: Path, folder_of: FolderOf
    ) -> None:
        model, data = write_relative(tmp_path / "tiny-llama", "llama"), folder_of("soda")
        own = {"model.backbone": "llama", "experts.init": "upcycle"}
        result = from_checkpoint(cli, tmp_path / "out", "soda", "top-2", model, data, settings=own)
        assert result["output_scale"] == pytest.approx(1.0, abs=0.1)
        flops = result["flops_eval"]
        # Two experts of two layers: 3 * 16 * 24 MACs more each, and routers of 4 * 16.
        assert flops["per_token"] - flops["dense_per_token"] == pytest.approx(2 * 2 * (3 * 16 * 24 + 64))

    def test_fsmt_on_wmt19(
        self, cli: CommandLine, tmp_path: Path, folder_of: FolderOf, fsmt_folder: Path
    ) -> None:
        data = folder_of("wmt19")
        result = from_checkpoint(cli, tmp_path / "out", "wmt19", "dense", fsmt_folder, data)
        assert result["metric"]["name"] == "bleu"
        saved = only_run(tmp_path / "out") / "model"
        assert (saved / "vocab-tgt.json").read_bytes() != (saved / "vocab-src.json").read_bytes()

    @pytest.mark.parametrize(
        ("task", "family"),
        [("squad", "bert"), ("cnn_dailymail", "bart"), ("soda", "gpt2"), ("wmt19", "fsmt")],
    )
    def test_upcycled(
        self,
        cli: CommandLine,
        tmp_path: Path,
        folder_of: FolderOf,
        request: pytest.FixtureRequest,
        task: str,
        family: str,
    ) -> None:
        """Experts that start as copies of the checkpoint's network."""
        folder, data = request.getfixturevalue(f"{family}_folder"), folder_of(task)
        upcycle = {"experts.init": "upcycle"}
        result = from_checkpoint(cli, tmp_path / "out", task, "adaptive", folder, data, upcycle)
        assert result["routing"]["mean_experts"] > 1
