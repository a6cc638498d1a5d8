"""Products found by images: embeddings on frozen EfficientNet-Lite0 features, judged by mAP.

    python -m anyshot_jax.main --config=configs/product_retrieval.py --config.data.dir=FILE

FILE is a packed npz, here that of the Grocery Store photos (Klasson et al. 2019, 81 classes; 54 are
known, a fifth of them for validation, and 27 are new). Every photo of the new classes asks for the
others of its class among all of them. `:grocery` is this recipe by name, `:emoji` is for 1040 emoji
in 8 styles, of which no image asks for those of its own family of styles. Both are Siamese, by the
triplet loss (--config.method.loss=contrastive or bce: by another). Other embeddings:
`:grocery_frozen`, `:grocery_protonet`, `:grocery_maml`, `:emoji_frozen`, `:emoji_protonet` and
`:emoji_maml`. Reached in 10 s on two cores, over three splits of the classes: mAP 60.6 on grocery
and 58.3 on emoji, frozen features 46.6 and 39.1. `:folder`,
`:folder_frozen`, `:folder_protonet` and `:folder_maml` are these for your own images,
--config.data.dir=DIR of DIR/<class>/<image>.
"""

from anyshot_jax.config import defaults, variant

SIZES = {'grocery': 112, 'emoji': 64, 'folder': 224}  # as they are packed, or as the encoder sees
KINDS = ('', '_frozen', '_protonet', '_maml')
FAMILIES = (
    ('noto', 'noto-v1'),
    ('fluent-emoji', 'fluent-emoji-flat', 'fluent-emoji-high-contrast'),
    ('emojione', 'emojione-monotone'),
)


def get_config(arg: str = ''):
    arg = variant(arg, *(f'{name}{kind}' for name in SIZES for kind in KINDS))
    name, _, kind = (arg or 'grocery').partition('_')
    kind, loader = kind or 'siamese', 'folder' if name == 'folder' else 'packed'
    if kind == 'frozen':
        config = defaults(method='simpleshot', data=loader)
        config.method.update({'normalise': 'l2', 'power': 0.5})
    else:
        config = defaults(method=kind, data=loader, net='projection')
    config.encoder = 'efficientnet_lite0'
    config.data.size = SIZES[name]
    if name == 'folder':
        config.fit_tasks = True
    else:
        config.data.set = name
    config.data.split = (0.53, 0.14, 0.33)
    if name == 'emoji':
        config.data.update({'group': 'style', 'merge': FAMILIES})
    config.eval.tasks = ()
    config.eval.retrieval = True

    if kind == 'frozen':
        config.num_steps = 0
        return config
    config.train.update({'ways': 16, 'shots': 1, 'queries': 7})
    if kind == 'siamese':
        config.method.update({'loss': 'triplet', 'mining': 'semi_hard', 'margin': 0.5})
    if kind == 'protonet':
        config.net.length = 3.0
    if kind == 'maml':  # the body that ANIL leaves
        config.net.length = 10.0
        config.method.update({'adapt': 'head', 'head': 'zero', 'inner_steps': 3})
    config.batch_size = 2
    config.num_steps = 400
    config.steps_per_call = 25
    config.log_every = 25
    config.eval_every = 25
    config.save_every = 100
    config.optim.learning_rate = 2e-4
    return config
