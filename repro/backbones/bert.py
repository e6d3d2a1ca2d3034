"""BERT: post-norm encoder; its FFN is split over `intermediate` and `output` (SST-2, SQuAD)."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from repro.backbones._sites import DenseMacs, FFNSite, Volume

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
    """WordPiece with BERT's normalisation, splitting and special tokens."""
    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(special.values()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
