"""Which defect is it? The type of a defect from 1, 2 and 5 images, on one product category.

    python -m anyshot_jax.main --config=configs/mvtec_types.py --config.data.dir=CATEGORY

CATEGORY holds train/good, test/good, test/<type>/ and ground_truth/<type>/, and if images are
near copies a manifest.csv with a column `tile` (data/mvtec.py). Two stages: `detect` gives anomaly
scores (PatchCore), `types` learns on synthetic defects to distinguish types and classifies real
ones. A folder of textures for some of the synthetic ones:
--config.types.data.pseudo.textures=DTD, else they are drawn.

One stage only, for the table: `:types` is the second; `:residual` and `:plain` compare residuals or
plain features without any training; `:pairs` compares pairs by a relation network; `:pixels` takes
mean images for prototypes, as the paper does. `:infonce` and `:relation` are the paper's two nets
on maps of residuals, pretrained on pasted textures, then fine-tuned on each task's shots (half an
hour on two cores, and days).
"""

from anyshot_jax.config import defaults, in_stages, variant

NETS = {'infonce': 'residual', 'relation': 'pair_relation', 'pairs': 'pair_relation'}


def get_config(arg: str = ''):
    arg = variant(arg, 'types', 'residual', 'plain', 'pairs', 'pixels', 'infonce', 'relation')
    types = defaults(method='anomaly', data='mvtec', net=NETS.get(arg, 'beside'))
    types.data.size = types.residual.size
    types.residual.encoder = 'efficientnet_lite0'
    types.eval.tasks = ((10, 2), (10, 1), (10, 5))
    types.eval.val_episodes = 200
    types.data.pseudo.update({'classes': 40, 'val_classes': 10, 'per_class': 30})

    # Schedule: short, since training overfits the synthetic types quickly; the paper's rate.
    types.train.update({'ways': 10, 'shots': 2, 'queries': 5})
    types.batch_size = 4
    types.num_steps = 100
    types.log_every = types.eval_every = types.save_every = 20
    types.optim.learning_rate = 1e-4
    if arg in ('residual', 'plain'):
        types.data.pseudo.classes = 0
        types.num_steps = 0
        types.residual.subtract = arg == 'residual'
        if arg == 'plain':
            types.residual.sharpness = 0.0
    if arg == 'pixels':
        types.method.prototypes = 'pixels'
        types.residual.average_shots = types.method.shots
    if arg == 'pairs':
        types.method.loss = 'relation'
    if arg in ('infonce', 'relation'):
        types.data.size = types.residual.size = 224
        types.data.pseudo.kind = 'texture'
        types.residual.update({'output': 'map', 'layers': ('stride8', 'stride16')})
        types.residual.synthetic_against = 'source'
        types.method.update({'loss': arg, 'temperature': 0.07, 'adapt_steps': 45})
        types.train.update({'shots': 9, 'queries': 1} if arg == 'infonce' else {'shots': 1})
        types.stop_at = 0.4
        types.batch_size = 2
        types.num_steps = 1000
    if arg:
        return types

    detect = defaults(method='patchcore', data='mvtec')
    detect.num_steps = 0
    detect.data.detect_only = True
    detect.method.update({'size': 256, 'layers': ('stride16', 'stride32'), 'ratio': 0.1})
    return in_stages(detect=detect, types=types)
