"""Options that the user got wrong: one line for each, exit status 2, nothing created, nothing changed."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import CommandLine
from refusals import contents, refused


@dataclass(frozen=True)
class Case:
    """Options of `repro train`, in addition to or instead of those of a small run, and the answer."""

    name: str
    options: list[str]
    problems: list[str]
    gate: str = "adaptive"


def settings(*assignments: str) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


WORDS = [
    Case(
        "task", ["--task", "sst-3"], [r"--task: unknown task 'sst-3'\. Did you mean 'sst2'\? Known: .*sst2"]
    ),
    Case("task far off", ["--task", "q"], [r"--task: unknown task 'q'\. Known: .*sst2"]),
    Case("gate", [], [r"--gate: unknown gate 'adaptiv'\. Did you mean 'adaptive'\?"], gate="adaptiv"),
    Case("gate top-two", [], [r"--gate: unknown gate 'top-two'\. Did you mean 'top-"], gate="top-two"),
    Case("gate top-0", [], [r"(?=.*gate)(?=.*at least 1).*0"], gate="top-0"),
    Case("private gate", [], [r"--gate: unknown gate '_softmax'"], gate="_softmax"),
    Case(
        "back-end",
        ["--experts-backend", "groupd"],
        [r"--experts-backend: .*unknown experts back-end 'groupd'\. Did you mean 'grouped'\?"],
    ),
    Case("scale", ["--scale", "mni"], [r"--scale: unknown scale 'mni'\. Did you mean 'mini'\?"]),
    Case(
        "key",
        settings("training.batchsize=3"),
        [r"--set training\.batchsize: unknown key .*Did you mean 'training\.batch_size'\?"],
    ),
    Case(
        "section",
        settings("trainng.warmup=0.1"),
        [r"--set trainng\.warmup: unknown key .*Did you mean 'training\.warmup'\?"],
    ),
    Case("section alone", settings("training=3"), [r"--set training: unknown key 'training'"]),
    Case("key of the gate", settings("gate.treshold=0.2"), [r"--set gate\.treshold: .*threshold"]),
    Case("no key", settings("=3"), [r"--set =3: expected KEY=VALUE"]),
    Case("no value", settings("training.warmup"), [r"--set training\.warmup: expected KEY=VALUE"]),
    Case(
        "twice",
        ["--threshold", "0.2", *settings("gate.threshold=0.3")],
        [r"gate\.threshold is given twice"],
    ),
    Case(
        "option of the model",
        settings("model.config.hidden_sise=3"),
        [r"model\.config.*unknown option 'hidden_sise'\. Did you mean 'hidden_size'\?"],
    ),
    Case("backbone", settings("model.backbone=brt"), [r"unknown backbone 'brt'\. Did you mean 'bert'\?"]),
    Case("option", ["--thresold", "0.1"], [r"No such option.*--thresold.*--threshold"]),
    Case(
        "curriculum",
        ["--curriculum", "cosin"],
        [r"--curriculum: .*random, cosine, distance, mean, count, length, got 'cosin'"],
    ),
    Case("precision", ["--precision", "fp16"], [r"--precision: .*auto, fp32, bf16, got 'fp16'"]),
    Case("source", settings("data.source=somewhere"), [r"data\.source"]),
]

POSITIONS = {"squad": 192, "wmt19": 128, "cnn_dailymail": 192, "wikitext": 128, "soda": 192}
"""Of the models of scale `mini`."""

VALUES = [
    Case("threshold above 1", ["--threshold", "1.5"], [r"--threshold: .*between 0 and 1, got 1\.5"]),
    Case("threshold below 0", ["--threshold", "-0.1"], [r"--threshold: .*between 0 and 1, got -0\.1"]),
    Case("threshold nan", ["--threshold", "nan"], [r"--threshold: .*between 0 and 1, got nan"]),
    Case("threshold word", ["--threshold", "low"], [r"'--threshold': .*number"]),
    Case(
        "threshold word set",
        settings("gate.threshold=low"),
        [r"--set gate\.threshold: .*a number, got 'low'"],
    ),
    Case(
        "threshold of top-2",
        ["--threshold", "0.1"],
        [r"--threshold: .*'top-2' has no option.*adaptive"],
        "top-2",
    ),
    Case(
        "threshold of dense",
        ["--threshold", "0.1"],
        [r"--threshold: .*'dense' has no option.*adaptive"],
        "dense",
    ),
    Case(
        "warmup of 401 digits",
        settings(f"training.warmup=1{'0' * 400}"),
        [r"--set training\.warmup: training\.warmup: must be at most 4294967295, got 10{70,76}\.\.\.$"],
    ),
    Case(
        "warmup of 5001 digits",
        settings(f"training.warmup=1{'0' * 5000}"),
        [r"--set training\.warmup: training\.warmup: expected a number, got '10{70,76}\.\.\.$"],
    ),
    Case("seed word", ["--seed", "one"], [r"'--seed': .*integer"]),
    Case("seed below 0", ["--seed", "-1"], [r"'--seed': .*0"]),
    Case("seed too large", ["--seed", str(2**32)], [r"--seed.*: .*429496729[56]"]),
    Case("steps 0", ["--steps", "0"], [r"--steps: .*at least 1, got 0"]),
    Case("steps word", ["--steps", "many"], [r"'--steps': .*integer"]),
    Case("epochs 0", ["--epochs", "0"], [r"--epochs: .*greater than 0 .*, got 0"]),
    Case("epochs inf", ["--epochs", "inf"], [r"--epochs: .*inf"]),
    Case(
        "steps and epochs",
        ["--steps", "3", "--epochs", "1"],
        [r"training\.steps, training\.epochs: give exactly one"],
    ),
    Case(
        "neither steps nor epochs",
        settings("training.epochs=none"),
        [r"training\.steps, training\.epochs: give exactly one"],
    ),
    Case(
        "rate 0", settings("training.learning_rate=0"), [r"training\.learning_rate: .*greater than 0, got 0"]
    ),
    Case("vocabulary none", settings("model.vocab_size=none"), [r"give a checkpoint or a vocab_size"]),
    Case("vocabulary word", settings("model.vocab_size=big"), [r"model\.vocab_size: .*whole number.*'big'"]),
    Case(
        "cosine with top-2",
        ["--curriculum", "cosine"],
        [r"--curriculum: 'cosine' .*random or length"],
        "top-2",
    ),
    Case(
        "count with dense", ["--curriculum", "count"], [r"--curriculum: 'count' .*random or length"], "dense"
    ),
    Case("experts of dense", settings("experts.init=upcycle"), [r"experts\.init has no effect"], "dense"),
    Case("back-end of dense", ["--experts-backend", "loop"], [r"--experts-backend: .*no effect"], "dense"),
    Case(
        "k of top-2",
        settings("gate.k=3"),
        [r"--set gate\.k: .*'top-2' fixes k = 2; use --gate top-k"],
        "top-2",
    ),
    Case("k word", settings("gate.k=two"), [r"--set gate\.k: .*'two'"], "top-k"),
    Case("k too large", settings("experts.count=4"), [r"5.*4 experts"], "top-5"),
    Case("one expert", settings("experts.count=1"), [r"at least 2 experts"]),
    Case("no layer left", settings("experts.every=9"), [r"experts\.every: .*9 leaves no layer"]),
    Case("too long", settings("data.max_length=500"), [r"data\.max_length: .*500.*128"]),
    Case("heads", settings("model.config.num_attention_heads=5"), [r"model\.config: .*heads"]),
    Case(
        "size word",
        settings("model.config.hidden_size=big"),
        [r"model\.config\.hidden_size: expected a whole number, got 'big'"],
    ),
    Case(
        "size 0",
        settings("model.config.hidden_size=0"),
        [r"model\.config\.hidden_size: must be between 1 .*, got 0"],
    ),
    Case(
        "activation",
        settings("model.config.hidden_act=swash"),
        [r"model\.config\.hidden_act: unknown activation 'swash'"],
    ),
    Case(
        "beams 0",
        ["--task", "wmt19", *settings("task.beams=0")],
        [r"--set task\.beams: .*at least 1, got 0"],
    ),
    Case(
        "option of no task",
        ["--task", "wmt19", *settings("task.nope=1")],
        [r"--set task\.nope: the task 'wmt19' has no option 'nope'; it has: direction, .*beams"],
    ),
    Case(
        "option of other tasks",
        settings("task.stride=1"),
        [r"--set task\.stride: the task 'sst2' has no option.*it has: none\. Tasks with 'stride': squad\."],
    ),
    Case(
        "options of a task at once",
        ["--task", "cnn_dailymail", *settings("task.beams=0", "task.direction=en-de")],
        [r"task\.beams: .*at least 1", r"task\.direction: .*no option 'direction'.*: wmt19\."],
    ),
    Case(
        "direction",
        ["--task", "wmt19", *settings("task.direction=fr-en")],
        [r"--set task\.direction: .*one of de-en, en-de, got 'fr-en'"],
    ),
    Case("task alone", settings("task=squad"), [r"--set task: "]),
    Case(
        "stride",
        ["--task", "squad", *settings("task.stride=125")],
        [r"data\.max_length: 160 leaves 125 tokens of context.*more than task\.stride = 125"],
    ),
    Case(
        "question",
        ["--task", "squad", *settings("task.max_question_length=400")],
        [r"data\.max_length: 160 leaves .*task\.max_question_length = 400"],
    ),
    Case(
        "both batch sizes",
        settings("training.batch_size=8", "training.batch_tokens=100"),
        [r"training\.batch_size, training\.batch_tokens: give exactly one"],
    ),
    Case(
        "no batch size",
        ["--task", "wmt19", *settings("training.batch_tokens=none")],
        [r"training\.batch_size, training\.batch_tokens: give exactly one"],
    ),
    Case(
        "batch tokens 0",
        settings("training.batch_tokens=0"),
        [r"training\.batch_tokens: .*at least 1, got 0"],
    ),
    *(
        Case(
            f"too long for {task}",
            ["--task", task, *settings("data.max_length=500")],
            [rf"data\.max_length.*500.* {positions} positions"],
        )
        for task, positions in POSITIONS.items()
    ),
    *(
        Case(
            f"target too long for {task}",
            ["--task", task, *settings("task.max_target_length=500")],
            [rf"task\.max_target_length.*500.* {positions} positions"],
        )
        for task, positions in POSITIONS.items()
        if task in ("wmt19", "cnn_dailymail")
    ),
    Case("not options", settings("model.config=3"), [r"model\.config"]),
    Case(
        "many at once",
        ["--threshold", "2", "--epochs", "1", "--steps", "3", *settings("experts.count=0", "data.max_len=9")],
        [
            r"--threshold: .*between 0 and 1, got 2",
            r"training\.steps, training\.epochs: give exactly one",
            r"--set experts\.count: .*between 1 and 4096, got 0",
            r"--set data\.max_len: unknown key .*'data\.max_length'",
        ],
    ),
    Case(
        "names at once",
        ["--task", "sst3", "--scale", "mni"],
        [r"--task: unknown task 'sst3'", r"--gate: unknown gate 'adptive'", r"--scale: unknown scale 'mni'"],
        "adptive",
    ),
]


@pytest.mark.parametrize("case", WORDS + VALUES, ids=lambda case: case.name)
def test_words_and_values(cli: CommandLine, tmp_path: Path, case: Case) -> None:
    """On an empty results folder, without the settings of a small run: all is refused before work."""
    small = settings("data.train_samples=8", "data.validation_samples=4")
    answer = cli(*("train", "--task", "sst2", "--gate", case.gate, "--out", tmp_path), *small, *case.options)
    refused(answer, *case.problems)
    assert contents(tmp_path) == {}


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["train", "--gate", "dense"], r"--task"),
            (["train", "--task", "sst2"], r"--gate"),
            (["trian"], r"No such command 'trian'.*train"),
            (["train", "--task"], r"--task.*requires an argument"),
            (["train", "--task", "sst2", "--gate", "dense", "extra"], r"extra"),
            (["eval"], r"(?i)run"),
            (["list", "gate"], r"unknown list 'gate'\. Did you mean 'gates'\?"),
            (["eval", "x", "--split", "tset"], r"--split: unknown split 'tset'\. Did you mean 'test'\?"),
            (["eval", "x", "--gate-at-inference", "top-2"], r"--gate-at-inference: .*'top-2'.*'top-1'"),
        ],
    )
    def test_one_line(
        self,
        cli: CommandLine,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        arguments: list[str],
        problem: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        refused(cli(*arguments), problem)
        assert contents(tmp_path) == {}

    def test_two_lines(self, cli: CommandLine, tmp_path: Path) -> None:
        answer = cli("eval", "x", "--split", "tset", "--gate-at-inference", "sam", "--out", tmp_path)
        refused(answer, r"--split: unknown split 'tset'", r"--gate-at-inference: unknown gate 'sam'")
