"""Text classifiers: read a text, give it one of a few labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.errors import TaskError
from specdef.models.base import Batch, LoadedModel, class_name, is_multimodal
from specdef.models.classifier import Classifier, refuse_other_heads

if TYPE_CHECKING:
    import torch


class TextClassifier(Classifier):
    """Samples are `specdef.models.samples.Labelled`, texts or pairs of texts.

    A batch is token ids [rows, tokens], labels [rows], attention mask [rows, tokens] and, where `encode_texts` gives
    it, which text of a pair a token belongs to [rows, tokens].
    """

    name = "text-classifier"
    adapter_task_type = "SEQ_CLS"
    head_names = ("score", "classifier")
    default_task = "classification"
    default_utility = "accuracy"

    def matches(self, config: Mapping[str, Any]) -> bool:
        """A class of transformers that is named as a classifier of sequences and reads text alone."""
        return class_name(config).endswith("ForSequenceClassification") and not is_multimodal(config)

    def load_processor(self, folder: Path) -> Any:
        """The tokenizer."""
        from specdef.models.loading import load_tokenizer

        return load_tokenizer(folder)

    def load(self, folder: Path, *, dtype: torch.dtype | None = None) -> LoadedModel:
        """The model and its tokenizer.

        A classifier on a decoder reads the last token that is no padding: where its config names no padding token, the
        tokenizer's is told to it.

        Raises:
            CheckpointError: it has fewer than two labels, or gives several labels at once.
        """
        from specdef.models.loading import load
        from specdef.models.texts import padding

        tokenizer = self.load_processor(folder)
        model: Any = load(folder, dtype=dtype)
        refuse_other_heads(model, folder)
        if model.config.pad_token_id is None:
            model.config.pad_token_id = padding(tokenizer)
        return LoadedModel(model, tokenizer, self)

    def encode(self, samples: Sequence[Any], loaded: LoadedModel) -> Batch:
        """Texts with the tokenizer's special tokens, padded on the right; what is too long loses its end.

        Raises:
            TaskError: a label that the model has not.
        """
        import torch

        from specdef.models.texts import encode_texts

        labels = loaded.model.config.num_labels
        wrong = next((sample for sample in samples if not 0 <= sample.label < labels), None)
        if wrong is not None:
            raise TaskError(
                f"`task` must have labels that the model has, from 0 to {labels - 1}; {wrong.text[:60]!r} has "
                f"{wrong.label}. Give another file, or a model with more labels."
            )
        ids, *rest = encode_texts([sample.read for sample in samples], loaded.model, loaded.processor)
        return ids, torch.tensor([sample.label for sample in samples]), *rest

    def batch(self, rows: Batch, chosen: Sequence[int]) -> Batch:
        """Trimmed to the longest row."""
        ids, labels, mask, *types = (tensor[list(chosen)] for tensor in rows)
        width = int(mask.sum(-1).max())
        return ids[:, :width], labels, mask[:, :width], *(one[:, :width] for one in types)

    def predictions(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and labels of every text."""
        from specdef.models.texts import model_inputs

        device = next(model.parameters()).device
        ids, labels, *rest = (tensor.to(device) for tensor in batch)
        logits: torch.Tensor = model(**model_inputs(ids, *rest)).logits
        return logits, labels

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits [texts, labels]. One text at a time where the config names no padding token to find the ends by."""
        import torch

        if model.config.pad_token_id is not None:
            return super().outputs(model, inputs)
        one = super().outputs
        rows = [
            {name: tensor[at : at + 1] for name, tensor in inputs.items()} for at in range(len(inputs["input_ids"]))
        ]
        return torch.cat([one(model, row) for row in rows])


KIND = TextClassifier()
