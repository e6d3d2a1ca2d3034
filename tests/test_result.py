"""`result.json` of small runs: its keys, and numbers that follow from each other or from the sizes."""

import statistics
from pathlib import Path

import numpy as np
import pytest
from command_line import CommandLine, TrainedRuns, only_run, read_legs, read_path
from scipy.stats import spearmanr

from repro.training.curriculum import rank_correlation

GATES = ("dense", "top-1", "top-2", "adaptive")
MOE = GATES[1:]
RESULT_KEYS = {
    *("schema_version", "run_id", "task", "gate", "scale", "seed", "config", "status"),
    *("steps", "epochs", "tokens", "train_seconds", "seconds_per_step", "seconds_per_step_by_epoch"),
    *("samples_per_step", "samples_left_out", "fair_steps", "lanes", "neighbours", "tokens_per_second"),
    *("beside", "stolen_share"),
    *("metric", "metric_top1", "metric_trivial", "metrics", "eval_loss", "dev_loss", "curve"),
    *("flops", "flops_eval", "routing", "routing_eval", "curriculum", "output_scale"),
    *("parameters", "peak_memory_bytes", "data", "environment"),
}
"""Those of docs/results.md."""


class TestResult:
    @pytest.mark.parametrize("gate", GATES)
    def test_keys(self, trained: TrainedRuns, gate: str) -> None:
        result = trained(gate).result
        assert set(result) == RESULT_KEYS
        assert result["run_id"] == trained(gate).folder.name
        assert (result["task"], result["gate"], result["scale"], result["seed"]) == ("sst2", gate, "mini", 0)
        assert (result["status"], result["steps"], result["epochs"]) == ("finished", 6, 1.5)
        assert set(result["metric"]) == {"name", "value", "higher_is_better", "count"}
        assert set(result["flops"]) == {
            "per_token",
            "per_token_executed",
            "macs_per_token",
            "dense_per_token",
        }
        assert set(result["parameters"]) == {"total", "active"}
        assert set(result["data"]) == {"source", "counts", "fingerprints", "skipped", "features", "cut"}

    @pytest.mark.parametrize("gate", GATES)
    def test_numbers(self, trained: TrainedRuns, gate: str) -> None:
        result = trained(gate).result
        assert result["train_seconds"] > 0
        assert result["tokens_per_second"] == pytest.approx(result["tokens"] / result["train_seconds"])
        seconds = [row["seconds"] for row in read_path(trained(gate).folder)]
        assert result["seconds_per_step"] == pytest.approx(statistics.median(seconds))
        assert result["peak_memory_bytes"] > 10_000_000
        metric = result["metric"]
        assert (metric["name"], metric["higher_is_better"], metric["count"]) == ("accuracy", True, 32)
        assert metric["value"] * 32 == pytest.approx(round(metric["value"] * 32))
        assert 0 < result["eval_loss"] < 2
        assert result["data"]["source"] == "synthetic"
        assert result["data"]["counts"] == {"train": 64, "dev": 16, "validation": 32}

    @pytest.mark.parametrize("gate", GATES)
    def test_curve(self, trained: TrainedRuns, gate: str) -> None:
        result = trained(gate).result
        trunk, cooldown = read_legs(trained(gate).folder)
        assert [row[0] for row in result["curve"]] == [0, 3, 6, 7]
        seconds = [row["seconds"] for row in trunk]
        for step, so_far, _ in result["curve"]:
            assert so_far == pytest.approx(sum(seconds[:step]))
        # The path to the model leaves the trunk behind step 4 of 7.
        assert (len(trunk), len(cooldown)) == (7, 2)
        late = sum(row["seconds"] for row in cooldown)
        assert result["train_seconds"] == pytest.approx(sum(seconds[:4]) + late)

    @pytest.mark.parametrize("gate", GATES)
    def test_losses_of_the_model(self, trained: TrainedRuns, gate: str) -> None:
        """At the end of the cooldown: on the dev split neither that of the trunk nor that on validation."""
        result = trained(gate).result
        (end,) = read_legs(trained(gate).folder, "evals.jsonl")[1]
        assert (end["step"], end["train_seconds"]) == (6, result["train_seconds"])
        assert end["eval_loss"] == result["dev_loss"]
        losses = {step: loss for step, _, loss in result["curve"]}
        assert len({result["dev_loss"], result["eval_loss"], losses[6]}) == 3

    @pytest.mark.parametrize("gate", MOE)
    def test_routing_shares(self, trained: TrainedRuns, gate: str) -> None:
        routing = trained(gate).result["routing"]
        assert sum(routing["share_by_count"]) == pytest.approx(1)
        layers = routing["share_by_count_per_layer"]
        assert len(layers) == 2
        for shares in layers:
            assert sum(shares) == pytest.approx(1)
            assert all(0 <= share <= 1 for share in shares)
        mean = sum(count * share for count, share in enumerate(routing["share_by_count"]))
        assert routing["mean_experts"] == pytest.approx(mean)
        # Four experts: between equal loads, which chance does not give, and one that has all.
        assert all(0 < variation < 3**0.5 for variation in routing["load_cv_per_layer"])
        assert all(0.3 < spread < 3 for spread in routing["logit_std_per_layer"])

    def test_routing_of_each_gate(self, trained: TrainedRuns) -> None:
        assert trained("top-1").result["routing"]["share_by_count"] == [0, 1]
        assert trained("top-2").result["routing"]["share_by_count"] == [0, 0, 1]
        none, one, two = trained("adaptive").result["routing"]["share_by_count"]
        assert none == 0
        assert 0 < two < one < 1
        assert trained("dense").result["routing"] is None

    def test_metric_under_top_1_inference(self, trained: TrainedRuns) -> None:
        assert trained("dense").result["metric_top1"] is None
        # With one expert in training the two gates at inference are the same.
        assert trained("top-1").result["metric_top1"] == trained("top-1").result["metric"]
        for gate in ("top-2", "adaptive"):
            assert set(trained(gate).result["metric_top1"]) == set(trained(gate).result["metric"])

    def test_flops(self, trained: TrainedRuns) -> None:
        flops = {gate: trained(gate).result["flops"] for gate in GATES}
        assert flops["dense"]["per_token"] == flops["dense"]["dense_per_token"]
        for gate in GATES:
            assert flops[gate]["per_token_executed"] >= flops[gate]["per_token"]
            assert flops[gate]["macs_per_token"] * 2 == flops[gate]["per_token"]
        assert flops["dense"]["per_token"] < flops["top-1"]["per_token"]
        assert flops["top-1"]["per_token"] < flops["adaptive"]["per_token"] <= flops["top-2"]["per_token"]

    def test_flops_by_hand(self, trained: TrainedRuns) -> None:
        """Width 32, hidden 64, two layers, four experts: one more expert costs 2 layers x 2 x 2 x 32 x 64."""
        top_1, top_2, dense = (trained(gate).result["flops"] for gate in ("top-1", "top-2", "dense"))
        router = 2 * 2 * 32 * 4
        assert top_1["per_token"] - top_1["dense_per_token"] == pytest.approx(router)
        assert top_2["per_token"] - top_2["dense_per_token"] == pytest.approx(router + 2 * 2 * 2 * 32 * 64)
        # The same samples in the same order.
        assert dense["dense_per_token"] == top_1["dense_per_token"] == top_2["dense_per_token"]

    def test_parameters_by_hand(self, trained: TrainedRuns) -> None:
        parameters = {gate: trained(gate).result["parameters"] for gate in GATES}
        assert all(entry["active"] <= entry["total"] for entry in parameters.values())
        assert parameters["dense"]["active"] == parameters["dense"]["total"]
        expert = 2 * 32 * 64 + 32 + 64
        for gate in MOE:
            more = parameters[gate]["total"] - parameters["dense"]["total"]
            assert more == 2 * (3 * expert + 4 * 32)
        idle = parameters["top-1"]["total"] - parameters["top-1"]["active"]
        assert idle == 2 * 3 * expert
        assert parameters["top-2"]["total"] - parameters["top-2"]["active"] == 2 * 2 * expert

    def test_names_no_place_of_this_machine(
        self, cli: CommandLine, tmp_path: Path, data_folder: Path
    ) -> None:
        answer = cli.train("adaptive", tmp_path / "results", "--data", data_folder)
        assert answer.status == 0, answer.err
        folder = only_run(tmp_path / "results")
        for name in ("result.json", "config.json", "environment.json", "model/config.json"):
            text = (folder / name).read_text(encoding="utf-8")
            assert str(tmp_path) not in text
            assert str(Path.home()) + "/" not in text


class TestRankCorrelation:
    """What a result says of samples' lengths and their shares of two-expert tokens."""

    def test_equal_values_share_a_rank(self) -> None:
        """Ranks 1, 2.5, 2.5, 4 and 4, 3, 2, 1: covariance -4.5, variances 4.5 and 5."""
        correlation = rank_correlation(np.array([1, 2, 2, 9]), np.array([0.8, 0.5, 0.4, 0.1]))
        assert correlation == pytest.approx(-4.5 / (4.5 * 5) ** 0.5)

    def test_as_scipy_has_it(self) -> None:
        left_N, right_N = np.random.default_rng(0).integers(0, 9, (2, 50))
        expected = spearmanr(left_N, right_N).statistic
        assert rank_correlation(left_N, right_N) == pytest.approx(expected)

    def test_constant(self) -> None:
        assert rank_correlation(np.array([3, 3, 3]), np.array([0.1, 0.2, 0.3])) is None
        assert rank_correlation(np.array([1, 2, 3]), np.zeros(3)) is None
