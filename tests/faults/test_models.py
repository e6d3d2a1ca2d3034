"""Folders of models that are hostile, damaged, or of another kind: nothing is run, one line says why."""

import json
import pickle
import random
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from checkpoints import put_into_cache
from command_line import Answer, CommandLine, TrainedRuns, only_run, without_model
from refusals import refused
from safetensors.torch import load_file

from repro.data.tokenizers import pretrained_tokenizer
from repro.errors import UserError
from repro.moe import hub, pretrained
from repro.moe.backbones import base as backbones
from repro.moe.folder import configuration, fingerprint_model
from repro.tasks import base as tasks

CPU = torch.device("cpu")
FAMILIES = {"bert": "sst2", "gpt2": "soda", "bart": "cnn_dailymail", "fsmt": "wmt19"}


@pytest.fixture
def copy_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """`copy_of(family)`: a tiny pretrained model of it, to be changed."""
    return lambda family: Path(
        shutil.copytree(request.getfixturevalue(f"{family}_folder"), tmp_path / f"of-{family}")
    )


@pytest.fixture
def run(trained: TrainedRuns, tmp_path: Path) -> Path:
    """A finished run with MoE layers, to be changed."""
    shutil.copytree(trained("adaptive").results, tmp_path / "results")
    return only_run(tmp_path / "results")


def change(path: Path, **entries: Any) -> None:
    plain = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(plain | entries), encoding="utf-8")


def use(folder: Path, family: str) -> dict[str, torch.Tensor]:
    """Load a pretrained model with its tokenizer, as training does; its weights."""
    backbone, module = backbones.load(family), tasks.load(FAMILIES[family])
    fingerprint_model(folder)
    torch.manual_seed(3)  # a head that is not in the folder
    pretrained_tokenizer(folder, "--model ")
    model = pretrained.load_checkpoint(
        folder, backbone, backbone.HEADS[module.HEAD], module.MODEL_OPTIONS, "--model "
    )
    return dict(model.state_dict())


def train(cli: CommandLine, model: object, out: Path, *options: object) -> Answer:
    settings = without_model() | {"training.steps": 1}
    return cli.train("dense", out, "--model", model, *options, settings=settings)


# --- code -----------------------------------------------------------------------------------------


class Code:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._path,))


def write_code(folder: Path, ran: Path) -> None:
    """Write a module that makes a file when it is imported."""
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Code: pass\n", encoding="utf-8")


AUTO_MAP = {name: "code.Code" for name in ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")}


class TestCode:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_of_a_configuration(
        self, copy_of: Callable[[str], Path], caplog: pytest.LogCaptureFixture, tmp_path: Path, family: str
    ) -> None:
        folder = copy_of(family)
        expected = use(folder, family)
        write_code(folder, tmp_path / "ran")
        change(folder / "config.json", auto_map=AUTO_MAP)
        weights = use(folder, family)
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in weights)
        assert "(auto_map) is not run" in caplog.text
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("command", ["eval", "analyze", "train"])
    def test_of_a_run(self, cli: CommandLine, run: Path, tmp_path: Path, command: str) -> None:
        write_code(run / "model", tmp_path / "ran")
        change(run / "model" / "config.json", auto_map=AUTO_MAP)
        if command == "train":
            settings = without_model() | {"training.steps": 1}
            answer = cli.train("top-1", tmp_path / "out", "--model", run / "model", settings=settings)
        else:
            answer = cli(command, run)  # which finds that it is not what the run saved
        assert answer.status == (0 if command == "train" else 2), answer.err
        assert "config.json names (auto_map) is not run\n" in answer.err
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("value", [{"AutoTokenizer": ["code.Code", None]}, ["code.Code", "code.Code"], 1])
    def test_of_a_tokenizer(self, cli: CommandLine, run: Path, tmp_path: Path, value: object) -> None:
        write_code(run / "model", tmp_path / "ran")
        change(run / "model" / "tokenizer_config.json", auto_map=value)
        problem = (
            r"tokenizer_config\.json: names code of the folder \(auto_map\), which is not run; no tokenizer$"
        )
        refused(cli("eval", run), problem)
        refused(train(cli, run / "model", tmp_path / "out"), problem)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "name", ["AutoModel", "AutoConfig", "AutoTokenizer", "AutoProcessor", "BertModel", "pipeline"]
    )
    def test_by_way_of_another_class(self, copy_of: Callable[[str], Path], tmp_path: Path, name: str) -> None:
        """The library takes any of its classes for a tokenizer; some ask whether to run code."""
        folder = copy_of("bert")
        write_code(folder, tmp_path / "ran")
        change(folder / "config.json", auto_map=AUTO_MAP)
        change(folder / "tokenizer_config.json", tokenizer_class=name)
        with pytest.raises(UserError, match=rf"tokenizer_class {name} is no tokenizer$"):
            pretrained_tokenizer(folder)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("kind", ["zip", "old", "plain", "shard"])
    def test_of_a_pickle(
        self, cli: CommandLine, copy_of: Callable[[str], Path], tmp_path: Path, kind: str
    ) -> None:
        folder = copy_of("bert")
        content = {"a": torch.zeros(1), "code": Code(tmp_path / "ran")}
        (folder / "model.safetensors").unlink()
        path = folder / ("part.bin" if kind == "shard" else "pytorch_model.bin")
        if kind == "plain":
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=kind != "old")
        if kind == "shard":
            index = {"weight_map": {"a": "part.bin"}}
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
        answer = train(cli, folder, tmp_path / "out")
        refused(
            answer, rf"{path.name}: (holds more than tensors, which could be code; it is not|cannot be read)"
        )
        assert not (tmp_path / "ran").exists()
        torch.load(path, weights_only=False) if kind == "zip" else None
        assert (tmp_path / "ran").exists() == (kind == "zip")  # it would have been


# --- weights as torch pickles them ---------------------------------------------------------------


def pickle_weights(folder: Path, parts: int = 1) -> None:
    """Put `pytorch_model.bin`, in one or more parts, into the place of `model.safetensors`."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if parts == 1:
        torch.save(weights, folder / "pytorch_model.bin")
        return
    files = [f"pytorch_model-{part + 1:05}-of-{parts:05}.bin" for part in range(parts)]
    held = {key: files[number % parts] for number, key in enumerate(weights)}
    for file in files:
        torch.save({key: weights[key] for key in held if held[key] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": held}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub's cache below HF_HOME, empty."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


class TestPickled:
    @pytest.mark.parametrize("parts", [1, 3])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_gives_the_same_model(
        self, copy_of: Callable[[str], Path], cache: Path, family: str, parts: int
    ) -> None:
        folder = copy_of(family)
        expected = use(folder, family)
        pickle_weights(folder, parts)
        put_into_cache(folder, "some/model", cache)
        for place in (folder, hub.snapshot("some/model")):
            weights = use(place, family)
            assert weights.keys() == expected.keys()
            assert all(torch.equal(weights[key], expected[key]) for key in weights)

    def test_gives_the_same_run(
        self, cli: CommandLine, copy_of: Callable[[str], Path], cache: Path, tmp_path: Path
    ) -> None:
        folder = copy_of("bert")
        expected = train(cli, folder, tmp_path / "a", "--json").json()["eval_loss"]
        pickle_weights(folder)
        put_into_cache(folder, "some/model", cache)
        assert train(cli, folder, tmp_path / "b", "--json").json()["eval_loss"] == expected
        assert train(cli, "some/model", tmp_path / "c", "--json").json()["eval_loss"] == expected

    def test_is_not_read_of_a_run(self, cli: CommandLine, run: Path) -> None:
        pickle_weights(run / "model")
        refused(cli("eval", run), r"model: no weights in it \(model\.safetensors\)")

    @pytest.mark.parametrize("content", [b"", b"x", [1], {"a": 1}, {"a": [torch.zeros(1)]}, torch.zeros(1)])
    def test_something_else(self, copy_of: Callable[[str], Path], content: object) -> None:
        folder = copy_of("bert")
        (folder / "model.safetensors").unlink()
        path = folder / "pytorch_model.bin"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(
            UserError, match=r"pytorch_model\.bin: (cannot be read|expected tensors|holds more)"
        ):
            use(folder, "bert")

    def test_a_part_is_not_there(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("gpt2")
        pickle_weights(folder, 2)
        (folder / "pytorch_model-00002-of-00002.bin").unlink()
        with pytest.raises(UserError, match=r"pytorch_model-00002-of-00002\.bin: cannot be read"):
            use(folder, "gpt2")


# --- files outside ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../weights.safetensors", "/tmp/weights.safetensors", "a/b", "..", "", 1, None]
)
def test_an_index_that_names_a_file_elsewhere(
    cli: CommandLine, run: Path, tmp_path: Path, name: object
) -> None:
    model = run / "model"
    weights = model / "model.safetensors"
    keys = list(load_file(weights))
    weights.rename(run / "weights.safetensors")
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(keys, name)}), encoding="utf-8")
    refused(cli("eval", run), r"model\.safetensors\.index\.json: weight_map\.")
    refused(train(cli, model, tmp_path / "out"), r"model\.safetensors\.index\.json: weight_map\.|MoE layers")


# --- sizes -----------------------------------------------------------------------------------------

SIZES = {
    "bert": ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "num_attention_heads"),
    "gpt2": ("n_layer", "n_embd", "n_inner", "vocab_size", "n_positions"),
    "bart": ("encoder_layers", "decoder_layers", "d_model", "decoder_ffn_dim", "max_position_embeddings"),
    "fsmt": ("encoder_layers", "decoder_layers", "d_model", "src_vocab_size", "max_position_embeddings"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_of_a_pretrained_model(copy_of: Callable[[str], Path], family: str) -> None:
    folder = copy_of(family)
    content = (folder / "config.json").read_text(encoding="utf-8")
    for entry in SIZES[family]:
        for value in (0, -1, 10**6, 10**9, 10**18, 1e9, "8", [2]):
            (folder / "config.json").write_text(json.dumps(json.loads(content) | {entry: value}))
            start = time.process_time()
            with pytest.raises(UserError) as caught:
                use(folder, family)
            assert "\n" not in str(caught.value)
            assert time.process_time() - start < 3


@pytest.mark.parametrize("command", ["eval", "analyze", "train"])
@pytest.mark.parametrize("entry", ["num_hidden_layers", "intermediate_size", "repro_moe"])
def test_sizes_of_a_run(cli: CommandLine, run: Path, tmp_path: Path, entry: str, command: str) -> None:
    """At once, and nothing is built before."""
    config = run / "model" / "config.json"
    experts = json.loads(config.read_text(encoding="utf-8"))["repro_moe"]
    value = {**experts, "experts": {"count": 10**9, "activation": "model", "every": 1}}
    change(config, **{entry: value if entry == "repro_moe" else 10**9})
    start = time.process_time()
    if command == "train":
        settings = without_model() | {"training.steps": 1}
        answer = cli.train("top-1", tmp_path / "out", "--model", run / "model", settings=settings)
    else:
        answer = cli(command, run)
    assert answer.status == 2
    lines = [line for line in answer.err.splitlines() if line != f"[1/1] {run.name}"]  # of `analyze`
    assert len(lines) == 1
    assert f"{run.name}/model: " in lines[0]
    assert time.process_time() - start < 3


# --- the hub --------------------------------------------------------------------------------------


def test_without_a_network(
    cli: CommandLine, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line at once, also from a hub that takes a call and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "_PATIENCE", 0.2)
        for port in (9, silent.getsockname()[1]):
            monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
            start = time.monotonic()
            answer = cli("train", "--task", "wmt19", "--gate", "dense", "--scale", "paper", "--out", tmp_path)
            way = "give a folder with --model DIR, or set HF_HOME to where it is cached$"
            refused(answer, rf"--model facebook/wmt19-de-en: .*the hub cannot be reached; {way}")
            assert time.monotonic() - start < 5
    assert list(tmp_path.glob("*/runs")) == []


# --- damages --------------------------------------------------------------------------------------

CONTENTS = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b"{",
    b"\xff\xfe\0",
    b"[" * 100_000,
    b'{"a": NaN}',
    b'{"a": {"a": 1}}',
]


def damaged(content: bytes, chance: random.Random) -> bytes | None:
    """Cut short, flip bits, put in another file; None deletes it."""
    kind = chance.randrange(5)
    if kind == 0:
        return content[: chance.randint(0, len(content))]
    if kind in (1, 2):
        bits = bytearray(content)
        for _ in range(chance.choice([1, 1, 3, 20])):
            bits[chance.randrange(min(len(bits), chance.choice([200, len(bits)])))] ^= 1 << chance.randrange(
                8
            )
        return bytes(bits)
    if kind == 3:
        return chance.choice([*CONTENTS, chance.randbytes(chance.randint(1, 300))])
    return None


def check_damages(folders: dict[str, Path], scratch: Path, cases: int, seed: int) -> None:
    """Damage one file of a model's folder, and load it: a pretrained one of a family, or that of a run."""
    outcomes = []
    for number in range(cases):
        chance = random.Random(f"{seed} {number}")
        name = chance.choice(sorted(folders))
        folder = scratch / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(folders[name], folder)
        path = chance.choice(sorted(folder.iterdir()))
        content = damaged(path.read_bytes(), chance)
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        try:
            if name == "run":
                pretrained_tokenizer(folder)
                pretrained.load(folder, CPU)
            else:
                use(folder, name)
            outcomes.append("fine")
        except UserError as error:
            (problem,) = error.problems
            assert problem.removeprefix("--model ").startswith(str(folder)), problem
            assert not set("\n\r") & set(problem)
            assert len(problem) < 600
            outcomes.append(problem)
    assert 0.1 < outcomes.count("fine") / cases < 0.6, outcomes.count("fine")


@pytest.fixture
def folders(request: pytest.FixtureRequest, trained: TrainedRuns) -> dict[str, Path]:
    pretrained_ones = {family: request.getfixturevalue(f"{family}_folder") for family in FAMILIES}
    return {**pretrained_ones, "run": trained("adaptive").folder / "model"}


def test_sixty_damages(folders: dict[str, Path], tmp_path: Path) -> None:
    check_damages(folders, tmp_path, cases=60, seed=19)


@pytest.mark.torture
def test_thousands_of_damages(folders: dict[str, Path], tmp_path: Path) -> None:
    check_damages(folders, tmp_path, cases=3000, seed=20)


def test_how_a_model_is_called_is_not_taken_from_its_folder(copy_of: Callable[[str], Path]) -> None:
    """With `regression` the library would compute another loss without a word; with `x` none at all."""
    folder = copy_of("bert")
    change(folder / "config.json", problem_type="regression", return_dict=False, output_attentions=True)
    config = configuration(folder)
    assert (config.problem_type, config.return_dict, config.output_attentions) == (None, True, False)
