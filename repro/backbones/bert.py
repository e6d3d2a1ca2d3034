"""BERT: post-norm encoder; its FFN is split over `intermediate` and `output` (SST-2, SQuAD)."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from repro.backbones._sites import FFNSite
from repro.volume import DenseMacs, Volume

MODEL_TYPE = "bert"
CONFIG = transformers.BertConfig
HEADS = {
    "sequence-classification": transformers.BertForSequenceClassification,
    "question-answering": transformers.BertForQuestionAnswering,
}
TIME_MAJOR = False


def ffn_sites(model: Any) -> Iterator[FFNSite]:
    """One site per layer. Dropout, residual and norm stay in `output`; only its matrix is taken out."""
    for layer in model.bert.encoder.layer:

        def replace(module: nn.Module, layer: Any = layer) -> None:
            layer.intermediate = module
            layer.output.dense = nn.Identity()

        yield FFNSite(
            stack="encoder",
            w1_FD=layer.intermediate.dense.weight,
            b1_F=layer.intermediate.dense.bias,
            w2_DF=layer.output.dense.weight,
            b2_D=layer.output.dense.bias,
            activation=model.config.hidden_act,
            replace=replace,
        )


def token_masks(call: Mapping[str, Any]) -> dict[str, Tensor | None]:
    """The attention mask is the mask of real tokens."""
    return {"encoder": call.get("attention_mask")}


def forward_macs(config: Any, head: str, volume: Volume) -> DenseMacs:
    """Per layer and token: 4 D^2 for the projections, 2 S D for attention, 2 D F for the FFN."""
    width, layers = config.hidden_size, config.num_hidden_layers
    attention = layers * (4 * width * width * volume.tokens + 2 * width * volume.squares)
    if head == "question-answering":
        top = 2 * width * volume.tokens
    else:
        top = volume.sequences * width * (width + config.num_labels)
    ffn = layers * 2 * width * config.intermediate_size * volume.tokens
    return DenseMacs(ffn=ffn, rest=attention + top)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """WordPiece with BERT's normalisation, splitting and special tokens.

    The same texts give the same vocabulary: the library numbers the inner letters `##x` in an order
    that changes from one training to the next, and breaks ties by it, so they are numbered here.
    """
    texts = list(texts)
    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    letters = sorted({letter for word in words for letter in word[1:]})
    trained = _tokenizer(models.WordPiece(unk_token="[UNK]"), normalizer, splitter)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*special.values(), *(f"##{letter}" for letter in letters)],
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    # A fresh tokenizer: in the trained one the letters would count as special tokens.
    vocabulary = models.WordPiece(vocab=trained.get_vocab(), unk_token="[UNK]")
    tokenizer = _tokenizer(vocabulary, normalizer, splitter)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _tokenizer(model: Any, normalizer: Any, splitter: Any) -> Any:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    return tokenizer
