"""BERT: post-norm encoder; its FFN is split over `intermediate` and `output` (SST-2, SQuAD)."""

from collections.abc import Iterable, Iterator
from typing import Any

import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from torch import nn

from repro.errors import UserError
from repro.moe.backbones.base import FFNSite, Layout, Stack
from repro.moe.backbones.shared.dense import no_router
from repro.moe.backbones.shared.masks import attention_mask
from repro.moe.ffn import FFN
from repro.moe.volume import Volume

MODEL_TYPE = "bert"
STACKS = {"encoder": "num_hidden_layers"}
CONFIG = transformers.BertConfig
HEADS = {
    "sequence-classification": transformers.BertForSequenceClassification,
    "question-answering": transformers.BertForQuestionAnswering,
}
INIT_STD = "initializer_range"
TIME_MAJOR = False
LAYOUT = Layout(
    heads={"encoder": "num_attention_heads"},
    dropout="hidden_dropout_prob",
    attention_dropout="attention_probs_dropout_prob",
)

own_router = no_router


def ffn_sites(model: transformers.PreTrainedModel) -> Iterator[FFNSite]:
    """Find one site per layer. Dropout, residual and norm stay in `output`; only its matrix is taken out.

    Raises:
        UserError: the model cuts its sequences into chunks for its networks; masks are of whole sequences.
    """
    if model.config.chunk_size_feed_forward:
        raise UserError("model.config.chunk_size_feed_forward: must be 0 for a model with MoE layers")
    for layer in model.bert.encoder.layer:

        def replace(module: nn.Module, layer: Any = layer) -> None:
            layer.intermediate = module
            layer.output.dense = nn.Identity()

        yield FFNSite(
            stack="encoder",
            ffn=FFN(
                layer.intermediate.dense.weight,
                layer.intermediate.dense.bias,
                layer.output.dense.weight,
                layer.output.dense.bias,
                model.config.hidden_act,
            ),
            norm=layer.attention.output.LayerNorm,
            replace=replace,
            attention=layer.attention.self,
        )


def stacks(model: transformers.PreTrainedModel) -> dict[str, Stack]:
    """Return the one encoder."""
    return {"encoder": Stack(model.bert, attention_mask)}


def fixed_parameters(model: transformers.PreTrainedModel) -> list[nn.Parameter]:
    """Return none: all are trained."""
    return []


def rest_macs(config: transformers.PreTrainedConfig, head: str, volume: Volume) -> int:
    """Count per layer and token 4 D^2 for the projections and 2 S D for attention; then the head."""
    width, layers = config.hidden_size, config.num_hidden_layers
    attention = layers * (4 * width * width * volume.encoder + 2 * width * volume.encoder_pairs)
    if head == "question-answering":
        return int(attention + 2 * width * volume.encoder)
    return int(attention + volume.sequences * width * (width + config.num_labels))


def vocabulary(tokenizer: transformers.PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the entries of the configuration that follow from the tokenizer."""
    return {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> transformers.PreTrainedTokenizerFast:
    """Train WordPiece with BERT's normalisation, splitting and special tokens.

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


def _tokenizer(
    model: models.Model, normalizer: normalizers.Normalizer, splitter: pre_tokenizers.PreTokenizer
) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    return tokenizer
