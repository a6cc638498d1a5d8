"""Is there a defect, and where? PatchCore on one product category of MVTec AD's layout.

    python -m anyshot_jax.main --config=configs/mvtec_patchcore.py --config.data.dir=CATEGORY

CATEGORY holds train/good, test/good, test/<type>/ and ground_truth/<type>/. Patches of frozen
EfficientNet-Lite0's maps of 1/16 and 1/32, a tenth of them remembered; prints the areas under the
ROC curves by image and by pixel, and the per-region overlap up to a false positive rate of 0.3.
`:resnet` is the setting of the type classifier's paper (ResNet-50, stages 2 and 3 pooled to 1024,
224 pixels out of 256), `:wide` PatchCore's own at 1 % (WideResNet-50-2, 320 pixels out of 366).

`:learnt` adds the score of a small network trained on synthetic defects (methods/patch_net.py). On
the magnetic tiles, three seeds, two minutes each on two CPU cores, most of it making and scoring
images; the plain recipe in the same session 84.3 / 75.8 / 59.3:

    python -m anyshot_jax.main --config=configs/mvtec_patchcore.py:learnt \\
        --config.data.category=magnetic_tile
    image AUROC 85.8 (85.3 to 86.8), pixel AUROC 80.3 (78.6 to 83.0), PRO 70.8 (69.0 to 72.8)

Validation is on synthetic defects on held-out normal images. It chose a loss in which a defect
weighs as much as its surroundings, the maximum of the map before smoothing as an image's score, and
step 200.
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    arg = variant(arg, 'resnet', 'wide', 'learnt')
    if arg == 'learnt':
        return learnt()
    config = defaults(method='patchcore', data='mvtec')
    config.num_steps = 0
    config.data.detect_only = True
    method = config.method
    method.update({'size': 256, 'layers': ('stride16', 'stride32'), 'ratio': 0.1})
    if arg in ('resnet', 'wide'):
        config.data.fit = 'crop'
        config.data.size, config.data.crop = (256, 224) if arg == 'resnet' else (366, 320)
        method.encoder = 'resnet50' if arg == 'resnet' else 'wide_resnet50_2'
        method.update({'layers': ('stride8', 'stride16'), 'dim': 1024, 'size': config.data.crop})
        method.ratio = 0.1 if arg == 'resnet' else 0.01
    return config


def learnt():
    config = defaults(method='patch_net', data='mvtec')
    config.data.detect_only = True
    config.data.pseudo.update({'classes': 40, 'val_classes': 10, 'per_class': 30})
    config.data.pseudo.held_out = 0.1
    config.method.size = 256

    # Schedule: short; synthetic defects are learnt in a minute.
    config.batch_size = 8
    config.num_steps = 200
    config.log_every = 50
    config.eval_every = config.save_every = 100
    return config
