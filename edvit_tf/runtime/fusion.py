"""The fusion MLP of a bundle: class-token features of the sub-models that answered → probabilities."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import BundleError, ModelError
from edvit_tf.runtime.interpreter import Flatbuffer

Feature = NDArray[np.float32]


class Fusion:
    """Turns features into an answer, whichever of them came.

    A feature that is missing is zeros, and `present` holds 0 for it, as in training. The logits are divided
    by the temperature that was fitted for that number missing: a probability means the same with and without.

    Raises:
        BundleError: the bundle's fusion flatbuffer does not fit its manifest.
        ModelError: it cannot be loaded.
    """

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self.order = manifest.fusion.order
        self.classes = manifest.classes
        self._fusion = manifest.fusion
        self._sizes = {name: manifest.submodel(name).feature_size for name in self.order}
        self._flatbuffer = Flatbuffer(bundle.file(manifest.fusion.file))
        takes = {tensor.name: tensor.shape for tensor in self._flatbuffer.inputs}
        gives = {tensor.name: tensor.shape for tensor in self._flatbuffer.outputs}
        if takes != {
            "features": (1, sum(self._sizes.values())),
            "present": (1, len(self.order)),
        } or gives != {"logits": (1, len(self.classes))}:
            raise BundleError(
                f"The fusion takes {takes} and gives {gives}, which does not fit the bundle's sub-models: "
                f"make the "
                "bundle again with edvit-tf export.",
                code="bundle.fusion",
            )

    def logits(self, features: Mapping[str, Feature | None]) -> Feature:
        """Return f32 [classes], divided by the temperature for the number missing.

        Args:
            features: f32 [width] by sub-model id; None, or no entry, for one that is missing.

        Raises:
            ModelError: none is there, one is unknown, or one is not finite or not as long as the manifest
                says.
        """
        given = {name: feature for name, feature in features.items() if feature is not None}
        if not given:
            raise ModelError("No sub-model has answered, so there is nothing to fuse.", code="fusion.empty")
        for name, feature in given.items():
            self._check(name, feature)
        parts = [given.get(name, np.zeros(size, np.float32)) for name, size in self._sizes.items()]
        whole = np.concatenate(parts)
        if not np.isfinite(whole).all():
            raise self._refused(*next(one for one in given.items() if not np.isfinite(one[1]).all()))
        present = np.array([[name in given for name in self.order]], np.float32)
        answer = self._flatbuffer.call({"features": whole[np.newaxis], "present": present})
        temperature = self._fusion.temperature(len(self.order) - len(given))
        return np.asarray(answer["logits"][0] / temperature, np.float32)

    def probabilities(self, features: Mapping[str, Feature | None]) -> Feature:
        """Return f32 [classes] that add up to 1; takes what `logits` takes."""
        return softmax(self.logits(features))

    def _check(self, name: str, feature: Feature) -> None:
        if name not in self._sizes:
            raise ModelError(f"{name} is no sub-model of this bundle.", code="fusion.feature")
        if feature.shape != (self._sizes[name],) or feature.dtype != np.float32:
            raise self._refused(name, feature)

    def _refused(self, name: str, feature: Feature) -> ModelError:
        return ModelError(
            f"{name} gave a feature of {feature.dtype} {list(feature.shape)} where {self._sizes[name]} "
            "finite float32 numbers belong.",
            code="fusion.feature",
        )


def softmax(logits: Feature) -> Feature:
    """Return probabilities f32 [..., classes] of logits of that shape."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)
