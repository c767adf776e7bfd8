"""What looks at the pixels: a Vision Transformer, a compact convolutional one, a plain convolutional network, or one that was trained before.

Story: `model.build` puts a head for its own classes on one of these. Each takes pixels [batch, side, side, 3] from -1 to 1 and gives
what it saw as numbers [batch, width].

Vision Transformer: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021. It learns from millions of images that neighbouring patches
belong together; where there are thousands, the compact transformer does better, whose first layers are convolutions and which pools
its sequence by attention: Hassani et al., "Escaping the Big Data Paradigm with Compact Transformers", 2021. The plain network is there
to compare with: what a transformer costs should come back in its verdict.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras


def backbone(settings: Mapping[str, Any]) -> keras.Model:
    """The one that `settings` (`model.DEFAULTS` says which there are) asks for.

    Raises:
        ValueError: there is no such architecture, its sizes do not fit, or the preset is none or cannot be had.
    """
    if settings["preset"]:
        return _pretrained(str(settings["preset"]), settings)
    if settings["architecture"] not in ARCHITECTURES:
        raise ValueError(f"training.parameters.architecture is {settings['architecture']!r}; there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[settings["architecture"]](settings)


def side(settings: Mapping[str, Any]) -> int:
    """Pixels of a side of the images that it looks at."""
    return _side_of_preset(str(settings["preset"])) if settings["preset"] else int(settings["image_size"])


@functools.cache
def _side_of_preset(preset: str) -> int:
    import keras_hub

    return int(keras_hub.models.ViTBackbone.from_preset(preset, load_weights=False).image_shape[0])


def _pretrained(preset: str, settings: Mapping[str, Any]) -> keras.Model:
    """A preset of KerasHub: its name, a folder, or a place under `kaggle://`, `hf://` or `gs://`. Its own image size counts."""
    import keras_hub

    policy = keras.config.dtype_policy().name
    vit = keras_hub.models.ViTBackbone.from_preset(preset, dtype=policy)
    if vit.image_shape[0] != vit.image_shape[1]:
        raise ValueError(f"training.parameters.preset: {preset} looks at images of {vit.image_shape}; square ones are needed")
    vit.trainable = not settings["frozen"]
    return _class_token(vit)


def _vit(settings: Mapping[str, Any]) -> keras.Model:
    import keras_hub

    side, width = int(settings["image_size"]), int(settings["width"])
    vit = keras_hub.models.ViTBackbone(
        image_shape=(side, side, 3),
        patch_size=int(settings["patch_size"]),
        num_layers=int(settings["layers"]),
        num_heads=int(settings["heads"]),
        hidden_dim=width,
        mlp_dim=2 * width,
        dropout_rate=float(settings["dropout"]),
    )
    return _class_token(vit)


def _class_token(vit: keras.Model) -> keras.Model:
    """What a ViT has gathered at the place before the first patch."""
    return keras.Model(vit.input, vit.output[:, 0], name="vit")


def _cct(settings: Mapping[str, Any]) -> keras.Model:
    from keras_hub.layers import PositionEmbedding, TransformerEncoder

    side, width, dropout = int(settings["image_size"]), int(settings["width"]), float(settings["dropout"])
    pixels = keras.Input((side, side, 3), name="images")
    seen = pixels
    for filters in (int(settings["stem"]), width):
        seen = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, activation="relu", kernel_initializer="he_normal")(seen)
        seen = keras.layers.MaxPooling2D(3, 2, padding="same")(seen)
    tokens = keras.layers.Reshape((-1, width))(seen)
    tokens = keras.layers.Add()([tokens, PositionEmbedding(tokens.shape[1])(tokens)])
    for _ in range(int(settings["layers"])):
        encoder = TransformerEncoder(
            2 * width, int(settings["heads"]), dropout=dropout, activation="gelu", layer_norm_epsilon=1e-6, normalize_first=True
        )
        tokens = encoder(tokens)
    tokens = keras.layers.LayerNormalization(epsilon=1e-6)(tokens)
    attention = keras.layers.Softmax(axis=1)(keras.layers.Dense(1)(tokens))
    pooled = keras.layers.Flatten()(keras.layers.Dot(axes=1)([attention, tokens]))
    return keras.Model(pixels, pooled, name="cct")


def _cnn(settings: Mapping[str, Any]) -> keras.Model:
    """Three convolutions, each on a quarter of the places and with twice the filters of the one before; then their mean."""
    side, stem = int(settings["image_size"]), int(settings["stem"])
    pixels = keras.Input((side, side, 3), name="images")
    seen = pixels
    for filters in (stem, 2 * stem, 4 * stem):
        seen = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(seen)
        seen = keras.layers.Activation("relu")(keras.layers.BatchNormalization()(seen))
        seen = keras.layers.MaxPooling2D(2)(seen)
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(seen), name="cnn")


ARCHITECTURES: Mapping[str, Callable[[Mapping[str, Any]], keras.Model]] = {"vit": _vit, "cct": _cct, "cnn": _cnn}
"""From scratch, by the name that `training.parameters.architecture` gives."""
