"""A small SigLIP with random weights and a vocabulary of letters, as files that `load` reads."""

import numpy as np

from anyshot_jax.encoders import catalogue, text_tower, vit_weights

LETTERS = ['<pad>', '<eos>', '<unk>', *'abcdefghijklmnopqrstuvwxyz\u2581.,:']
SIZES = {'patch': 8, 'width': 32, 'layers': 1, 'num_heads': 4, 'hidden': 40}
_TEXT = text_tower.SIGLIP | {'context': 24, 'width': 32, 'num_heads': 4, 'hidden': 40}
_TEXT |= {'features': 32, 'layers': 1, 'vocabulary': len(LETTERS)}
VIT = catalogue.Vit('siglip', SIZES, text_tower.TextTower(**_TEXT))


def write(folder) -> str:
    """The name under which `load` takes it, where `catalogue.VITS` has 'tiny_siglip'."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, normalizers

    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    wanted = vit_weights.shapes(VIT.net(32), 'siglip') | text_tower.shapes(VIT.text)
    tensors = {k: rng.normal(0, 0.3, s).astype(np.float32) for k, s in wanted.items()}
    tensors['logit_scale'] = np.log(np.float32([20]))
    save_file(tensors, folder / 'model.safetensors')
    vocabulary = {w: i for i, w in enumerate(LETTERS)}
    tok = Tokenizer(models.BPE(vocabulary, [], unk_token='<unk>'))
    tok.normalizer = normalizers.Replace(' ', '\u2581')
    tok.save(str(folder / 'tokenizer.json'))
    return f'tiny_siglip={folder}'
