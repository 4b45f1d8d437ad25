"""What a head is: which hidden state it reads, its layers, what its outputs stand for, and what it is trained on.

Published heads are special cases:

| | anchor | body | codec | losses |
|---|---|---|---|---|
| LMME3DHF (arXiv 2504.20466) | `prompt_end` | 1024, 256, 64, 16 | affine 0 to 100 | `l1` |
| ChatPose (arXiv 2311.18836) | `<POSE>`, predicted | as wide as the model | 24 rotations of six numbers | `text`, 0.1 `body`, 0.1 `root` |
| Q-Align (arXiv 2312.17090) | `prompt_end` | none | words with centres | `cross_entropy` |

LMME3DHF itself reads the third token from the end, where its evaluation shows the level that it asks for; a prompt's end sees no answer.

Imports no torch: recipes are checked without it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from omnistage.data.prompts import CONTROL_TOKEN
from omnistage.data.records import LEVELS
from omnistage.data.section import Count, Number, NumberOrZero, Section, ShareBelowOne, Text

Activation = Literal["relu", "gelu", "silu"]
Layout = Literal["columns", "interleaved", "rows"]
LossName = Literal["text", "l1", "l2", "correlation", "cross_entropy", "body", "root", "joints"]


# Of data/body/skeleton.json.
BODY_JOINTS = 24


class PromptEnd(Section):
    """The state of the prompt's last token. What is answered cannot reach it."""

    at: Literal["prompt_end"] = Field("prompt_end", description="the prompt's last token")


class AtToken(Section):
    """A state at each occurrence of a token in the answer, one value for each."""

    at: Literal["token"] = Field(description="a token of the answer")
    token: Text = Field("<POSE>", description="the token; it is added to the tokenizer where it is missing")
    state: Literal["predicting", "self"] = Field("predicting", description="the state that predicts the token, or the token's own")

    @field_validator("token")
    @classmethod
    def token_can_be_answered(cls, token: str) -> str:
        if token.split() != [token]:
            raise ValueError(f"is {token!r}; a token is one word without spaces")
        if CONTROL_TOKEN.search(token):
            raise ValueError(f"is {token!r}, which reads as a control token of the chat; demonstrations may hold none. '<POSE>' would do")
        return token


class Body(Section):
    """A stack of linear layers, computed in float32. The first one is as wide as the model, the last one as the codec asks."""

    sizes: list[Count] = Field(default=[1024, 256, 64, 16], description="widths of the hidden layers; empty: one linear layer")
    activation: Activation = Field("gelu", description="behind every hidden layer")
    final: Literal["linear", "sigmoid"] = Field("linear", description="what becomes of the last layer's outputs")
    norm: bool = Field(False, strict=True, description="normalize the state before the first layer")
    dropout: ShareBelowOne = Field(0.0, description="behind every hidden layer")


class Affine(Section):
    """One number or several: an output of 0 stands for `low`, one of 1 for `high`."""

    kind: Literal["affine"] = Field(description="numbers")
    low: Number = Field(description="value of an output of 0")
    high: Number = Field(description="value of an output of 1")
    names: list[Text] = Field(default=["score"], min_length=1, description="what each output is")

    @model_validator(mode="after")
    def low_is_below_high(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g} and high is {self.high:g}; low must be below high")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"names are {', '.join(self.names)}; they must differ")
        return self


class Rotations(Section):
    """Joint rotations, six numbers each (Zhou et al., arXiv 1812.07035), made orthogonal by Gram-Schmidt."""

    kind: Literal["rot6d"] = Field(description="rotations")
    layout: Layout = Field("columns", description="which six numbers of a matrix (data/rotations.py)")
    joints: Count = Field(24, description="joints, the first of which turns the whole body")


class Levels(Section):
    """Words in order, each with the number that it stands for; the value is the mean of these numbers under the words' probabilities."""

    kind: Literal["levels"] = Field(description="words with numbers")
    words: list[Text] = Field(default=list(LEVELS), min_length=2, description="from the worst to the best")
    centres: list[Number] = Field(description="the number of each word, rising")

    @model_validator(mode="after")
    def each_word_has_a_centre(self) -> Self:
        if len(self.words) != len(self.centres):
            raise ValueError(f"words has {len(self.words)} entries and centres {len(self.centres)}; each word needs one")
        if len(set(self.words)) != len(self.words):
            raise ValueError(f"words are {', '.join(self.words)}; they must differ")
        if sorted(set(self.centres)) != self.centres:
            raise ValueError(f"centres are {', '.join(f'{c:g}' for c in self.centres)}; they must rise")
        return self


class Term(Section):
    """One part of the loss."""

    name: LossName = Field(description="which")
    weight: NumberOrZero = Field(1.0, description="factor in the sum")


Anchor = Annotated[PromptEnd | AtToken, Field(discriminator="at")]
Codec = Annotated[Affine | Rotations | Levels, Field(discriminator="kind")]
LOSSES: dict[str, tuple[LossName, ...]] = {
    "affine": ("l1", "l2", "correlation"),
    "rot6d": ("body", "root", "joints"),
    "levels": ("cross_entropy", "l1"),
}


class HeadSpec(Section):
    """A head by name; a checkpoint may carry several."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="name of the head in checkpoints and metrics")
    anchor: Anchor = Field(default=PromptEnd(), description="the state that it reads")
    body: Body = Field(default=Body(), description="its layers")
    codec: Codec = Field(description="what its outputs stand for")
    losses: list[Term] = Field(min_length=1, description="what it is trained on; text: the cross-entropy of the answer's tokens")

    @model_validator(mode="after")
    def losses_fit_the_codec(self) -> Self:
        allowed = ("text", *LOSSES[self.codec.kind])
        names = [term.name for term in self.losses]
        for name in names:
            if name not in allowed:
                raise ValueError(f"losses has {name!r} and codec is {self.codec.kind!r}; allowed: {', '.join(allowed)}")
        if len(set(names)) != len(names):
            raise ValueError(f"losses are {', '.join(names)}; each may stand there once")
        if set(names) <= {"text"}:
            raise ValueError(f"losses has nothing but 'text'; at least one of {', '.join(allowed[1:])}")
        return self

    @model_validator(mode="after")
    def sigmoid_is_of_numbers(self) -> Self:
        if self.body.final == "sigmoid" and self.codec.kind != "affine":
            raise ValueError(f"body.final is 'sigmoid' and codec is {self.codec.kind!r}; a sigmoid goes with 'affine'")
        return self

    @model_validator(mode="after")
    def joints_are_the_body_s(self) -> Self:
        if isinstance(self.codec, Rotations) and self.codec.joints != BODY_JOINTS and any(term.name == "joints" for term in self.losses):
            raise ValueError(f"codec.joints is {self.codec.joints} and losses has 'joints'; places are known of {BODY_JOINTS} joints")
        return self

    def goes_on_from(self, before: HeadSpec) -> bool:
        """Whether a head that was trained as `before` has the weights of this one: all but the losses is alike."""
        return self.model_copy(update={"losses": before.losses}) == before

    @property
    def text_weight(self) -> float:
        """Weight of the answer's cross-entropy."""
        return sum(term.weight for term in self.losses if term.name == "text")

    @property
    def token(self) -> str | None:
        """The token that it is anchored at, if any."""
        return self.anchor.token if isinstance(self.anchor, AtToken) else None
