"""A study's plan: its runs in their order, what they share, and what the user got wrong."""

from pathlib import Path
from typing import Any

import pytest
from planned import SCHEMES, copy_studies, finish, planned

from repro.errors import UserError
from repro.run.resolve import resolve
from repro.run.scales import scale_names
from repro.study.definition import load_study, study_names
from repro.study.plan import plan, task_names, together


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the studies' files, which a test may change."""
    return copy_studies(tmp_path, monkeypatch)


class TestTasks:
    def test_those_of_the_paper_in_the_order_of_the_scale(self) -> None:
        """Others only if they are asked for."""
        assert task_names("schemes", "mini", []) == [
            "sst2",
            "wmt19",
            "squad",
            "cnn_dailymail",
            "wikitext",
            "soda",
        ]

    def test_the_chosen_ones_each_once_in_the_order_of_the_command(self) -> None:
        assert task_names("schemes", "mini", ["wikitext", "sst2", "wikitext"]) == ["wikitext", "sst2"]
        assert task_names("schemes", "mini", ["cnn-dailymail", "cnn_dailymail"]) == ["cnn_dailymail"]
        assert task_names("schemes", "mini", ["arc", "sst2"]) == ["arc", "sst2"]

    def test_unknown(self) -> None:
        with pytest.raises(UserError) as error:
            task_names("schemes", "mini", ["sst2", "sst3"])
        assert error.value.problems[0].startswith("--tasks: unknown task 'sst3'. Did you mean 'sst2'?")


class TestPlan:
    def test_order(self, tmp_path: Path) -> None:
        """What is compared stands together: by task, then seed, then scheme."""
        runs = planned(tmp_path, ("wikitext", "sst2"), seeds=2)
        assert [(run.config.task, run.config.seed, run.variant) for run in runs] == [
            (task, seed, scheme) for task in ("wikitext", "sst2") for seed in (0, 1) for scheme in SCHEMES
        ]
        assert all(run.variant == run.config.gate for run in runs)
        assert len({run.config.run_id for run in runs}) == 16

    def test_studies_together(self, tmp_path: Path) -> None:
        """Each run once, by task and seed; what starts from another run's model is last."""
        tasks = ("wikitext", "sst2")
        names = ("adamoe", "schemes", "threshold")
        studies = [planned(tmp_path, tasks, seeds=2, study=study) for study in names]
        runs = together(studies)
        # The top-2 of adamoe combines otherwise than that of the schemes.
        first = ["top-2", "dense", "top-2", "top-1", "adaptive", "0.05", "0.2", "0.3", "0.4"]
        variants = [*first, "plain", "adamoe"]
        assert [(run.config.task, run.config.seed, run.variant) for run in runs] == [
            (task, seed, variant) for task in tasks for seed in (0, 1) for variant in variants
        ]
        assert {run.config.run_id for run in runs} == {run.config.run_id for one in studies for run in one}

    def test_some_variants_are_the_same_runs(self, tmp_path: Path) -> None:
        runs = planned(tmp_path, only=("adaptive", "top-2"))
        assert [run.variant for run in runs] == ["top-2", "adaptive"]
        assert {run.config.run_id for run in runs} < {run.config.run_id for run in planned(tmp_path)}

    def test_finished_rows_stay_beside_the_chosen_ones(self, tmp_path: Path) -> None:
        """Rows of which a run is missing, or that had other settings, do not."""
        for run in planned(tmp_path, ("sst2", "wikitext"), seeds=2):
            if (run.variant, run.config.task) == ("dense", "wikitext"):
                continue
            if run.variant == "dense" or (run.variant == "top-1" and run.config.seed == 0):
                finish(run)
        alone = [("sst2", 0, "adaptive"), ("sst2", 1, "adaptive")]

        def rows(**changes: Any) -> list[tuple[str, int, str]]:
            runs = planned(tmp_path, only=("adaptive",), **changes)
            return [(run.config.task, run.config.seed, run.variant) for run in runs]

        assert rows(seeds=2) == [
            (task, seed, variant) for task, seed, _ in alone for variant in ("dense", "adaptive")
        ]
        assert rows(seeds=1) == [("sst2", 0, variant) for variant in ("dense", "top-1", "adaptive")]
        assert rows(seeds=2, settings={"training.steps": 3}) == alone
        assert rows(tasks=("wikitext",)) == [("wikitext", 0, "top-1"), ("wikitext", 0, "adaptive")]

    def test_finished_thresholds_stay_beside_other_values(self, tmp_path: Path) -> None:
        finished = planned(tmp_path, study="threshold", only=("top-2", "0.05", "0.3"))
        for run in finished:
            finish(run)
        runs = planned(tmp_path, study="threshold", values=(0.3, 0.31))
        assert [run.variant for run in runs] == ["top-2", "0.05", "0.3", "0.31"]
        assert runs[:3] == finished

    def test_what_only_other_rows_refuse(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse_dense(*, gate: str, **rest: Any) -> Any:
            if gate == "dense":
                raise UserError("not for dense")
            return resolve(gate=gate, **rest)

        monkeypatch.setattr("repro.study.plan.resolve", refuse_dense)
        (run,) = planned(tmp_path, only=("top-1",))
        assert run.variant == "top-1"
        with pytest.raises(UserError, match="not for dense"):
            planned(tmp_path, only=("top-1", "dense"))

    def test_a_setting_without_effect_on_the_chosen_rows(self, tmp_path: Path) -> None:
        """It has one on others, which are not run."""
        with pytest.raises(UserError, match="logit_std"):
            planned(tmp_path, only=("dense",), settings={"gate.logit_std": 0.5})

    def test_variants_that_have_no_place_in_any_model(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as error:
            planned(tmp_path, ("wikitext", "wmt19"), study="gates", only=("expert-choice 1.5",))
        assert error.value.problems == (
            "--variants: expert-choice 1.5: no place in a model of wikitext, wmt19",
        )
        assert len(planned(tmp_path, ("wikitext", "sst2"), study="gates", only=("expert-choice",))) == 4

    def test_runs_of_a_comparison_differ_in_nothing_else(self, tmp_path: Path) -> None:
        runs = planned(tmp_path, settings={"training.steps": 7, "experts.count": 4})
        same = [
            (run.config.model, run.config.data, run.config.evaluation, run.config.task_options)
            for run in runs
        ]
        assert len(set(same)) == 1
        assert {run.config.training.steps for run in runs} == {7}
        assert [run.config.training.curriculum for run in runs] == ["random"] * 4
        orders = [run.config.training.curriculum for run in planned(tmp_path)]
        assert orders == ["random"] * 3 + ["cosine"]

    def test_folder_and_whether_it_is_finished(self, tmp_path: Path) -> None:
        first, second, *_ = planned(tmp_path)
        assert first.folder.path == tmp_path / "mini" / "runs" / first.config.run_id
        assert not first.finished
        finish(first)
        assert (first.finished, second.finished) == (True, False)

    def test_experts_do_not_apply_to_dense(self, tmp_path: Path) -> None:
        """A dense run is the same, and is done once, whatever the experts of the others."""
        plain = planned(tmp_path)
        upcycled = planned(tmp_path, settings={"experts.count": 4, "experts.init": "upcycle"})
        assert upcycled[0].config.run_id == plain[0].config.run_id
        for run, before in zip(upcycled[1:], plain[1:], strict=True):
            assert (run.config.experts.count, run.config.experts.init) == (4, "upcycle")
            assert run.config.run_id != before.config.run_id

    def test_options_of_gates_do_not_apply_to_dense(self, tmp_path: Path) -> None:
        """The same router initialisation for every MoE scheme of a comparison."""
        runs = planned(tmp_path, settings={"gate.logit_std": 0.5})
        assert [run.config.gate_options.logit_std for run in runs[1:]] == [0.5] * 3

    def test_a_gate_option_that_no_scheme_has(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no option 'treshold'"):
            planned(tmp_path, settings={"gate.treshold": 0.5})

    def test_what_a_variant_fixes_stays(self, tmp_path: Path, studies: Path) -> None:
        (studies / "schemes.toml").write_text(
            """
            title = "Two adaptive gates."
            table = "table3"
            [variants]
            "T = 0.4" = { gate = "adaptive", set.gate.threshold = 0.4 }
            "by count" = { gate = "adaptive", set.training.curriculum = "count" }
            """,
            encoding="utf-8",
        )
        runs = planned(tmp_path, settings={"gate.threshold": 0.2})
        assert [run.variant for run in runs] == ["T = 0.4", "by count"]
        assert [run.config.gate_options.threshold for run in runs] == [0.4, 0.2]
        assert [run.config.training.curriculum for run in runs] == ["cosine", "count"]

    def test_problems_are_listed_once(self, tmp_path: Path) -> None:
        settings = {"training.stepps": 3, "training.steps": "many"}
        with pytest.raises(UserError) as error:
            planned(tmp_path, ("sst2", "wikitext"), seeds=2, settings=settings)
        unknown, wrong = error.value.problems
        assert unknown.startswith("--set training.stepps: unknown key 'training.stepps'. Did you mean 'tr")
        assert wrong == "--set training.steps: training.steps: expected a whole number or none, got 'many'"

    def test_missing_data_are_one_problem(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as error:
            plan(
                "schemes",
                tasks=("sst2",),
                seeds=2,
                scale="mini",
                data=str(tmp_path / "nowhere"),
                overrides={},
                results=tmp_path,
            )
        (problem,) = error.value.problems
        assert "nowhere: no such folder" in problem

    def test_all_start_from_a_pretrained_model(self, tmp_path: Path, bert_folder: Path) -> None:
        tasks, model = ("sst2", "squad"), bert_folder
        runs = planned(tmp_path, tasks, model=model, settings={"experts.init": "upcycle"})
        assert [(run.config.task, run.variant) for run in runs] == [
            (task, scheme) for task in tasks for scheme in SCHEMES
        ]
        (checkpoint,) = {run.config.model.checkpoint for run in runs}
        assert checkpoint is not None and checkpoint.startswith("dir:tiny-bert:")
        assert {run.paths.model for run in runs} == {bert_folder}
        assert [run.config.experts.init for run in runs] == ["random", *["upcycle"] * 3] * 2
        first, *others = planned(tmp_path, study="adamoe", model=model)
        assert first.config.model.checkpoint == checkpoint
        assert {run.config.model.checkpoint for run in others} == {f"run:{first.config.run_id}"}

    def test_runs_from_scratch_are_not_beside_those_from_a_model(
        self, tmp_path: Path, bert_folder: Path
    ) -> None:
        for run in planned(tmp_path):
            finish(run)
        (run,) = planned(tmp_path, only=("top-1",), model=bert_folder)
        assert (run.variant, run.finished) == ("top-1", False)

    def test_a_model_of_another_family(self, tmp_path: Path, bert_folder: Path) -> None:
        """One line for every task that it does not fit, before anything is trained."""
        with pytest.raises(UserError) as error:
            planned(tmp_path, ("sst2", "wmt19", "wikitext"), seeds=2, model=bert_folder)
        assert error.value.problems == (
            f"--model {bert_folder}: it is a 'bert' model; task 'wmt19' needs 'fsmt'",
            f"--model {bert_folder}: it is a 'bert' model; task 'wikitext' needs 'gpt2'",
        )

    def test_a_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=f"--model {tmp_path}: not a saved model"):
            planned(tmp_path, model=tmp_path)


class TestInitFrom:
    """Variants that start from another's model: the study `adamoe`."""

    def test_named_by_the_run_that_they_start_from(self, tmp_path: Path) -> None:
        """So they can be planned before it is made, and are the same afterwards."""
        runs = planned(tmp_path, ("sst2", "wikitext"), seeds=2, study="adamoe")
        assert [run.variant for run in runs] == ["top-2", "plain", "adamoe"] * 4
        assert len({run.config.run_id for run in runs}) == 12
        for first, *others in (runs[at : at + 3] for at in range(0, 12, 3)):
            assert (first.init_from, first.paths.model, first.config.model.checkpoint) == (None, None, None)
            for run in others:
                assert run.init_from == first
                assert (run.config.task, run.config.seed) == (first.config.task, first.config.seed)
                assert run.config.model.checkpoint == f"run:{first.config.run_id}"
                assert run.config.model.backbone == first.config.model.backbone
                assert (run.config.model.config, run.config.model.vocab_size) == ((), None)
                assert run.paths.model == first.folder.model
        finish(runs[0])
        runs[0].folder.model.mkdir()
        assert planned(tmp_path, ("sst2", "wikitext"), seeds=2, study="adamoe") == runs
        other = planned(tmp_path, study="adamoe", settings={"training.learning_rate": 0.25})
        assert {run.config.run_id for run in other}.isdisjoint(run.config.run_id for run in runs)

    def test_the_two_differ_in_their_gate_alone(self, tmp_path: Path) -> None:
        first, plain, adamoe = planned(tmp_path, study="adamoe")
        assert [run.config.gate for run in (first, plain, adamoe)] == ["top-2", "top-2", "adamoe"]
        assert plain.config.training == adamoe.config.training
        assert plain.config.model == adamoe.config.model
        assert {run.config.gate_options.combine for run in (first, plain, adamoe)} == {"renormalised"}

    def test_what_the_recipe_says_and_what_the_scale_says(self, tmp_path: Path) -> None:
        first, plain, adamoe = planned(tmp_path, study="adamoe")
        assert (first.config.training.epochs, plain.config.training.epochs) == (2, 1)
        assert adamoe.config.training.curriculum == "random"
        assert plain.config.training.learning_rate == first.config.training.learning_rate
        assert plain.config.data == first.config.data
        options = adamoe.config.gate_options
        assert (options.k, options.nulls) == (3, adamoe.config.experts.count)
        definition = load_study("adamoe")
        started = {label for label, variant in definition.variants.items() if variant.init_from}
        assert started == {"plain", "adamoe"}
        assert set(definition.recipe) <= {"base", *started}

    def test_what_the_user_says_stands(self, tmp_path: Path) -> None:
        settings = {"training.steps": 7, "gate.nulls": 4, "experts.count": 4}
        runs = planned(tmp_path, study="adamoe", settings=settings)
        assert {(run.config.training.steps, run.config.training.epochs) for run in runs} == {(7, None)}
        assert {run.config.experts.count for run in runs} == {4}
        assert runs[2].config.gate_options.nulls == 4

    def test_what_comes_with_the_model_is_not_given_again(self, tmp_path: Path) -> None:
        settings = {"model.vocab_size": 300, "model.config.hidden_size": 64, "experts.init": "upcycle"}
        runs = planned(tmp_path, study="adamoe", settings=settings)
        assert [run.config.experts.init for run in runs] == ["upcycle", "random", "random"]
        assert [run.config.model.vocab_size for run in runs] == [300, None, None]
        assert dict(runs[0].config.model.config)["hidden_size"] == 64
        assert runs[1].config.model.config == ()

    def test_a_wrong_key_in_the_recipe_is_named(self, tmp_path: Path, studies: Path) -> None:
        path = studies / "adamoe.toml"
        before, _, _ = path.read_text(encoding="utf-8").partition("[recipe.base.training]")
        wrong = "[recipe.base.training]\nepoks = 1\n[recipe.adamoe.gate]\nnulls = 0\n"
        path.write_text(before + wrong, encoding="utf-8")
        with pytest.raises(UserError) as error:
            planned(tmp_path, study="adamoe")
        unknown, low = error.value.problems
        assert unknown.startswith(
            "experiments/studies/adamoe.toml: unknown key 'training.epoks'. Did you mean"
        )
        assert low == "experiments/studies/adamoe.toml: gate.nulls: must be at least 1, got 0"

    def test_a_recipe_is_no_scale(self) -> None:
        assert {"mini", "small", "paper"} <= set(scale_names())
        assert set(study_names()).isdisjoint(scale_names())
