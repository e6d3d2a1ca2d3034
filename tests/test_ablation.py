"""A study's plan, its runs one after the other, and the record of what was compared."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repro import ablation, experiments, plugins
from repro.ablation import PlannedRun, carry_out, record_study, task_names
from repro.errors import Interrupted, UserError
from repro.experiments import Override
from repro.studies import schemes

SCHEMES = ("dense", "top-2", "top-1", "adaptive")


def plan(
    results: Path,
    tasks: tuple[str, ...] = ("sst2",),
    seeds: int = 1,
    study: str = "schemes",
    only: tuple[str, ...] = (),
    model: Path | None = None,
    values: tuple[float, ...] = (),
    **settings: object,
) -> list[PlannedRun]:
    """The runs of a study with settings given by `--set`; `__` in a name stands for a dot."""
    keys = {name.replace("__", "."): value for name, value in settings.items()}
    return ablation.plan(
        study,
        tasks=tasks,
        seeds=seeds,
        scale="mini",
        data=None,
        overrides={key: Override(value, f"--set {key}") for key, value in keys.items()},
        results=results,
        model=None if model is None else str(model),
        only=only,
        values=values,
    )


def finish(run: PlannedRun) -> None:
    run.folder.path.mkdir(parents=True)
    run.folder.result.write_text("{}")


class TestTasks:
    def test_all_of_the_scale_in_its_order(self) -> None:
        assert task_names("mini", []) == ["sst2", "wmt19", "squad", "cnn_dailymail", "wikitext", "soda"]

    def test_those_wanted_each_once_in_the_order_given(self) -> None:
        assert task_names("mini", ["wikitext", "sst2", "wikitext"]) == ["wikitext", "sst2"]
        assert task_names("mini", ["cnn-dailymail", "cnn_dailymail"]) == ["cnn_dailymail"]

    def test_unknown(self) -> None:
        with pytest.raises(UserError) as error:
            task_names("mini", ["sst2", "sst3"])
        assert error.value.problems[0].startswith("--tasks: unknown task 'sst3'. Did you mean 'sst2'?")


class TestPlan:
    def test_order(self, tmp_path: Path) -> None:
        """What is compared stands together: by task, then seed, then scheme."""
        runs = plan(tmp_path, ("wikitext", "sst2"), seeds=2)
        assert [(run.config.task, run.config.seed, run.variant) for run in runs] == [
            (task, seed, scheme) for task in ("wikitext", "sst2") for seed in (0, 1) for scheme in SCHEMES
        ]
        assert all(run.variant == run.config.gate for run in runs)
        assert len({run.config.run_id for run in runs}) == 16

    def test_studies_together(self, tmp_path: Path) -> None:
        """Each run once, by task and seed; what starts from another run's model is last."""
        tasks = ("wikitext", "sst2")
        names = ("adamoe", "schemes", "threshold")
        studies = [plan(tmp_path, tasks, seeds=2, study=study) for study in names]
        runs = ablation.together(studies)
        # The top-2 of adamoe combines otherwise than that of the schemes.
        first = ["top-2", "dense", "top-2", "top-1", "adaptive", "0.05", "0.2", "0.3", "0.4"]
        variants = [*first, "plain", "adamoe"]
        assert [(run.config.task, run.config.seed, run.variant) for run in runs] == [
            (task, seed, variant) for task in tasks for seed in (0, 1) for variant in variants
        ]
        wanted = {run.config.run_id for study in studies for run in study}
        assert {run.config.run_id for run in runs} == wanted

    def test_some_variants_are_the_same_runs(self, tmp_path: Path) -> None:
        runs = plan(tmp_path, only=("adaptive", "top-2"))
        assert [run.variant for run in runs] == ["top-2", "adaptive"]
        assert {run.config.run_id for run in runs} < {run.config.run_id for run in plan(tmp_path)}

    def test_finished_rows_stay_beside_those_wanted(self, tmp_path: Path) -> None:
        """Rows of which a run is missing, or that had other settings, do not."""
        for run in plan(tmp_path, ("sst2", "wikitext"), seeds=2):
            if (run.variant, run.config.task) == ("dense", "wikitext"):
                continue
            if run.variant == "dense" or (run.variant == "top-1" and run.config.seed == 0):
                finish(run)
        alone = [("sst2", 0, "adaptive"), ("sst2", 1, "adaptive")]

        def rows(**changes: Any) -> list[tuple[str, int, str]]:
            runs = plan(tmp_path, only=("adaptive",), **changes)
            return [(run.config.task, run.config.seed, run.variant) for run in runs]

        assert rows(seeds=2) == [
            (task, seed, variant) for task, seed, _ in alone for variant in ("dense", "adaptive")
        ]
        assert rows(seeds=1) == [("sst2", 0, variant) for variant in ("dense", "top-1", "adaptive")]
        assert rows(seeds=2, training__steps=3) == alone
        assert rows(tasks=("wikitext",)) == [("wikitext", 0, "top-1"), ("wikitext", 0, "adaptive")]

    def test_finished_thresholds_stay_beside_other_values(self, tmp_path: Path) -> None:
        finished = plan(tmp_path, study="threshold", only=("top-2", "0.05", "0.3"))
        for run in finished:
            finish(run)
        runs = plan(tmp_path, study="threshold", values=(0.3, 0.31))
        assert [run.variant for run in runs] == ["top-2", "0.05", "0.3", "0.31"]
        assert runs[:3] == finished

    def test_what_only_other_rows_refuse(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse_dense(*, gate: str, **rest: Any) -> Any:
            if gate == "dense":
                raise UserError("not for dense")
            return experiments.resolve(gate=gate, **rest)

        monkeypatch.setattr(ablation, "resolve", refuse_dense)
        (run,) = plan(tmp_path, only=("top-1",))
        assert run.variant == "top-1"
        with pytest.raises(UserError, match="not for dense"):
            plan(tmp_path, only=("top-1", "dense"))

    def test_a_setting_without_effect_on_the_rows_wanted(self, tmp_path: Path) -> None:
        """It has one on others, which are not run."""
        with pytest.raises(UserError, match="logit_std"):
            plan(tmp_path, only=("dense",), gate__logit_std=0.5)

    def test_variants_that_have_no_place_in_any_model(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as error:
            plan(tmp_path, ("wikitext", "wmt19"), study="gates", only=("expert-choice 1.5",))
        assert error.value.problems == (
            "--variants: expert-choice 1.5: no place in a model of wikitext, wmt19",
        )
        assert len(plan(tmp_path, ("wikitext", "sst2"), study="gates", only=("expert-choice",))) == 4

    def test_runs_of_a_comparison_differ_in_nothing_else(self, tmp_path: Path) -> None:
        runs = plan(tmp_path, training__steps=7, experts__count=4)
        same = [
            (run.config.model, run.config.data, run.config.evaluation, run.config.task_options)
            for run in runs
        ]
        assert len(set(same)) == 1
        assert {run.config.training.steps for run in runs} == {7}
        assert [run.config.training.curriculum for run in runs] == ["random"] * 3 + ["cosine"]

    def test_folder_and_whether_it_is_finished(self, tmp_path: Path) -> None:
        first, second, *_ = plan(tmp_path)
        assert first.folder.path == tmp_path / "mini" / "runs" / first.config.run_id
        assert not first.finished
        finish(first)
        assert (first.finished, second.finished) == (True, False)

    def test_experts_do_not_apply_to_dense(self, tmp_path: Path) -> None:
        """A dense run is the same, and is done once, whatever the experts of the others."""
        plain, given = plan(tmp_path), plan(tmp_path, experts__count=4, experts__init="upcycle")
        assert given[0].config.run_id == plain[0].config.run_id
        for run, before in zip(given[1:], plain[1:], strict=True):
            assert (run.config.experts.count, run.config.experts.init) == (4, "upcycle")
            assert run.config.run_id != before.config.run_id

    def test_options_of_gates_do_not_apply_to_dense(self, tmp_path: Path) -> None:
        """The same router initialisation for every MoE scheme of a comparison."""
        runs = plan(tmp_path, gate__logit_std=0.5)
        assert [run.config.gate_options.logit_std for run in runs[1:]] == [0.5] * 3

    def test_a_gate_option_that_no_scheme_has(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no option 'treshold'"):
            plan(tmp_path, gate__treshold=0.5)

    def test_what_a_variant_fixes_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        variants = {
            "T = 0.4": ("adaptive", {"gate.threshold": 0.4}),
            "by count": ("adaptive", {"training.curriculum": "count"}),
        }
        monkeypatch.setattr(schemes, "VARIANTS", variants)
        runs = plan(tmp_path, gate__threshold=0.2)
        assert [run.variant for run in runs] == list(variants)
        assert [run.config.gate_options.threshold for run in runs] == [0.4, 0.2]
        assert [run.config.training.curriculum for run in runs] == ["cosine", "count"]

    def test_problems_are_listed_once(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as error:
            plan(tmp_path, ("sst2", "wikitext"), seeds=2, training__stepps=3, training__steps="many")
        unknown, wrong = error.value.problems
        assert unknown.startswith("--set training.stepps: unknown key 'training.stepps'. Did you mean 'tr")
        assert wrong == "--set training.steps: training.steps: expected a whole number or none, got 'many'"

    def test_missing_data_are_one_problem(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as error:
            ablation.plan(
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
        runs = plan(tmp_path, tasks, model=model, experts__init="upcycle")
        assert [(run.config.task, run.variant) for run in runs] == [
            (task, scheme) for task in tasks for scheme in SCHEMES
        ]
        (checkpoint,) = {run.config.model.checkpoint for run in runs}
        assert checkpoint is not None and checkpoint.startswith("dir:tiny-bert:")
        assert {run.places.model for run in runs} == {bert_folder}
        assert [run.config.experts.init for run in runs] == ["random", *["upcycle"] * 3] * 2
        first, *others = plan(tmp_path, study="adamoe", model=model)
        assert first.config.model.checkpoint == checkpoint
        assert {run.config.model.checkpoint for run in others} == {f"run:{first.config.run_id}"}

    def test_runs_from_scratch_are_not_beside_those_from_a_model(
        self, tmp_path: Path, bert_folder: Path
    ) -> None:
        for run in plan(tmp_path):
            finish(run)
        (run,) = plan(tmp_path, only=("top-1",), model=bert_folder)
        assert (run.variant, run.finished) == ("top-1", False)

    def test_a_model_of_another_family(self, tmp_path: Path, bert_folder: Path) -> None:
        """One line for every task that it does not fit, before anything is trained."""
        with pytest.raises(UserError) as error:
            plan(tmp_path, ("sst2", "wmt19", "wikitext"), seeds=2, model=bert_folder)
        assert error.value.problems == (
            f"--model {bert_folder}: it is a 'bert' model; task 'wmt19' needs 'fsmt'",
            f"--model {bert_folder}: it is a 'bert' model; task 'wikitext' needs 'gpt2'",
        )

    def test_a_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=f"--model {tmp_path}: not a model directory"):
            plan(tmp_path, model=tmp_path)


class TestAfter:
    """Variants that start from another's model: the study `adamoe`."""

    def test_named_by_the_run_that_they_start_from(self, tmp_path: Path) -> None:
        """So they can be planned before it is made, and are the same afterwards."""
        runs = plan(tmp_path, ("sst2", "wikitext"), seeds=2, study="adamoe")
        assert [run.variant for run in runs] == ["top-2", "plain", "adamoe"] * 4
        assert len({run.config.run_id for run in runs}) == 12
        for first, *others in (runs[at : at + 3] for at in range(0, 12, 3)):
            assert (first.after, first.places.model, first.config.model.checkpoint) == (None, None, None)
            for run in others:
                assert run.after == first
                assert (run.config.task, run.config.seed) == (first.config.task, first.config.seed)
                assert run.config.model.checkpoint == f"run:{first.config.run_id}"
                assert run.config.model.backbone == first.config.model.backbone
                assert (run.config.model.config, run.config.model.vocab_size) == ((), None)
                assert run.places.model == first.folder.model
        finish(runs[0])
        runs[0].folder.model.mkdir()
        assert plan(tmp_path, ("sst2", "wikitext"), seeds=2, study="adamoe") == runs
        other = plan(tmp_path, study="adamoe", training__learning_rate=5e-4)
        assert {run.config.run_id for run in other}.isdisjoint(run.config.run_id for run in runs)

    def test_the_two_differ_in_their_gate_alone(self, tmp_path: Path) -> None:
        first, plain, adamoe = plan(tmp_path, study="adamoe")
        assert [run.config.gate for run in (first, plain, adamoe)] == ["top-2", "top-2", "adamoe"]
        assert plain.config.training == adamoe.config.training
        assert plain.config.model == adamoe.config.model
        assert {run.config.gate_options.combine for run in (first, plain, adamoe)} == {"renormalised"}

    def test_what_the_recipe_says_and_what_the_scale_says(self, tmp_path: Path) -> None:
        first, plain, adamoe = plan(tmp_path, study="adamoe")
        assert (first.config.training.epochs, plain.config.training.epochs) == (2, 1)
        assert adamoe.config.training.curriculum == "random"
        assert plain.config.training.learning_rate == first.config.training.learning_rate
        assert plain.config.data == first.config.data
        options = adamoe.config.gate_options
        assert (options.k, options.nulls) == (3, adamoe.config.experts.count)
        tables = experiments.read_experiment("adamoe")
        assert set(tables) <= {"base", *plugins.load("studies", "adamoe").AFTER}

    def test_what_the_user_says_stands(self, tmp_path: Path) -> None:
        runs = plan(tmp_path, study="adamoe", training__steps=7, gate__nulls=4, experts__count=4)
        assert {(run.config.training.steps, run.config.training.epochs) for run in runs} == {(7, None)}
        assert {run.config.experts.count for run in runs} == {4}
        assert runs[2].config.gate_options.nulls == 4

    def test_what_comes_with_the_model_is_not_given_again(self, tmp_path: Path) -> None:
        runs = plan(
            tmp_path,
            study="adamoe",
            model__vocab_size=300,
            model__config__hidden_size=64,
            experts__init="upcycle",
        )
        assert [run.config.experts.init for run in runs] == ["upcycle", "random", "random"]
        assert [run.config.model.vocab_size for run in runs] == [300, None, None]
        assert dict(runs[0].config.model.config)["hidden_size"] == 64
        assert runs[1].config.model.config == ()

    def test_a_wrong_key_in_the_recipe_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(experiments.scales_folder(), tmp_path / "experiments")
        recipe = tmp_path / "experiments" / "adamoe.toml"
        recipe.write_text("[base.training]\nepoks = 1\n[adamoe.gate]\nnulls = 0\n", encoding="utf-8")
        monkeypatch.setattr(experiments, "scales_folder", lambda: tmp_path / "experiments")
        with pytest.raises(UserError) as error:
            plan(tmp_path, study="adamoe")
        unknown, low = error.value.problems
        assert unknown.startswith("experiments/adamoe.toml: unknown key 'training.epoks'. Did you mean")
        assert low == "experiments/adamoe.toml: gate.nulls: must be at least 1, got 0"

    def test_a_recipe_is_no_scale(self) -> None:
        assert "adamoe" not in experiments.scale_names()
        assert {"mini", "small", "paper"} <= set(experiments.scale_names())

    @pytest.mark.parametrize(
        ("finished", "kept", "reason"),
        [
            (False, True, "the run that it starts from, {first}, is not finished"),
            (
                True,
                False,
                "the run that it starts from, {first}, has no model any more;"
                " delete its folder to train it again",
            ),
        ],
    )
    def test_nothing_to_start_from(self, tmp_path: Path, finished: bool, kept: bool, reason: str) -> None:
        first, *others = plan(tmp_path, study="adamoe")
        if finished:
            finish(first)
        if kept:
            first.folder.model.mkdir(parents=True)
        told: list[Any] = []
        failed = carry_out(
            others,
            started=lambda number, run: told.append(number),
            report=lambda run, record: None,
            ended=lambda run, outcome: told.append(outcome),
            should_stop=lambda: False,
        )
        expected = reason.format(first=first.config.run_id)
        assert failed == {run.config.run_id: expected for run in others}
        assert told == [0, expected, 1, expected]


Log = list[tuple[str, str]]


class TestCarryOut:
    @pytest.fixture
    def carry(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
        """Carry out the four schemes; `errors` of some happen instead of training. Fills a log."""

        def call(log: Log, errors: dict[str, BaseException] | None = None) -> dict[str, str]:
            runs = plan(tmp_path)

            def execute(config: Any, places: Any, *, report: Any, should_stop: Any) -> dict[str, Any]:
                assert places.results == tmp_path
                assert should_stop() is False
                report({"step": 1})
                if config.gate in (errors or {}):
                    raise errors[config.gate]
                return {"run_id": config.run_id}

            def started(number: int, run: PlannedRun) -> None:
                assert runs[number] is run
                log.append(("start", run.variant))

            def ended(run: PlannedRun, outcome: dict[str, Any] | str) -> None:
                done = isinstance(outcome, dict)
                assert not done or outcome == {"run_id": run.config.run_id}
                log.append(("done" if done else str(outcome), run.variant))

            monkeypatch.setattr(ablation, "execute", execute)
            return carry_out(
                runs,
                started=started,
                report=lambda run, record: log.append(("step", str(record["step"]))),
                ended=ended,
                should_stop=lambda: False,
            )

        return call

    def test_one_after_the_other(self, carry: Any) -> None:
        log: Log = []
        assert carry(log) == {}
        assert log == [
            event for scheme in SCHEMES for event in (("start", scheme), ("step", "1"), ("done", scheme))
        ]

    def test_goes_on_after_a_failure(self, carry: Any, tmp_path: Path) -> None:
        log: Log = []
        errors = {
            "top-2": FloatingPointError("the loss is nan at step 2;\n  lower it"),
            "top-1": UserError("one thing", "another thing"),
        }
        ids = {run.variant: run.config.run_id for run in plan(tmp_path)}
        reasons = {
            "top-2": "FloatingPointError: the loss is nan at step 2; lower it",
            "top-1": "UserError: one thing another thing",
        }
        assert carry(log, errors) == {ids[scheme]: reason for scheme, reason in reasons.items()}
        assert [event for event in log if event[0] not in ("start", "step")] == [
            (reasons.get(scheme, "done"), scheme) for scheme in SCHEMES
        ]

    @pytest.mark.parametrize("stop", [Interrupted("stopped after step 3 of 8"), KeyboardInterrupt()])
    def test_stops_when_asked_to(self, carry: Any, stop: BaseException) -> None:
        log: Log = []
        with pytest.raises(type(stop)):
            carry(log, {"top-2": stop})
        assert [event for event in log if event[0] != "step"] == [
            ("start", "dense"),
            ("done", "dense"),
            ("start", "top-2"),
        ]

    def test_nothing_to_do(self) -> None:
        def never(*arguments: Any) -> Any:
            raise AssertionError

        assert carry_out([], started=never, report=never, ended=never, should_stop=never) == {}


class TestRecord:
    @staticmethod
    def read(scale: Path) -> dict[str, Any]:
        value = json.loads((scale / "studies" / "schemes.json").read_text(encoding="utf-8"))
        assert isinstance(value, dict)
        return value

    def test_rows_and_their_runs(self, tmp_path: Path) -> None:
        runs = plan(tmp_path, seeds=2)
        record_study("schemes", runs, {}, tmp_path)
        ids = {(run.variant, run.config.seed): run.config.run_id for run in runs}
        assert self.read(tmp_path) == {
            "study": "schemes",
            "tasks": {"sst2": {scheme: [ids[scheme, 0], ids[scheme, 1]] for scheme in SCHEMES}},
            "failed": {},
        }
        assert [path.name for path in (tmp_path / "studies").iterdir()] == ["schemes.json"]

    def test_tasks_are_merged_and_replaced(self, tmp_path: Path) -> None:
        """Other tasks stay; of the same task the last command says what is compared."""
        sst2, wikitext = plan(tmp_path, seeds=2), plan(tmp_path, ("wikitext",))
        record_study("schemes", sst2, {}, tmp_path)
        record_study("schemes", wikitext, {}, tmp_path)
        found = self.read(tmp_path)["tasks"]
        assert list(found) == ["sst2", "wikitext"]
        assert len(found["sst2"]["top-2"]) == 2
        fewer = plan(tmp_path, training__steps=3)
        record_study("schemes", fewer, {}, tmp_path)
        again = self.read(tmp_path)["tasks"]
        assert again["wikitext"] == found["wikitext"]
        assert again["sst2"] == {run.variant: [run.config.run_id] for run in fewer}

    def test_reasons_stay_until_the_run_is_done(self, tmp_path: Path) -> None:
        sst2, wikitext = plan(tmp_path), plan(tmp_path, ("wikitext",))
        ids = [run.config.run_id for run in (*sst2, *wikitext)]
        record_study("schemes", sst2, {ids[1]: "MemoryError: big", ids[2]: "ValueError: odd"}, tmp_path)
        record_study("schemes", wikitext, {ids[4]: "OSError: no disk"}, tmp_path)
        everything = {ids[1]: "MemoryError: big", ids[2]: "ValueError: odd", ids[4]: "OSError: no disk"}
        assert self.read(tmp_path)["failed"] == everything
        finish(sst2[1])
        record_study("schemes", sst2, {ids[2]: "ValueError: other"}, tmp_path)
        assert self.read(tmp_path)["failed"] == {ids[2]: "ValueError: other", ids[4]: "OSError: no disk"}

    def test_reasons_of_runs_that_are_no_longer_compared_go(self, tmp_path: Path) -> None:
        runs = plan(tmp_path)
        record_study("schemes", runs, {runs[1].config.run_id: "MemoryError: big"}, tmp_path)
        record_study("schemes", plan(tmp_path, training__steps=3), {}, tmp_path)
        assert self.read(tmp_path)["failed"] == {}

    def test_unwritable(self, tmp_path: Path) -> None:
        (tmp_path / "studies").write_text("a file where the folder should be")
        with pytest.raises(UserError, match=r"studies.schemes\.json: cannot be written \(.+\)"):
            record_study("schemes", plan(tmp_path), {}, tmp_path)

    def test_a_broken_record_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "studies").mkdir()
        (tmp_path / "studies" / "schemes.json").write_text("{")
        with pytest.raises(UserError, match=r"schemes\.json: cannot be read"):
            record_study("schemes", plan(tmp_path), {}, tmp_path)
