"""The notebooks run from the first cell to the last, in a kernel of their own."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FILES = sorted((Path(__file__).resolve().parent.parent / 'experiments/notebooks').glob('*.ipynb'))
# A pattern of each one's last outputs that only a right run prints.
SAYS = {'own_images': "'defect'", 'own_method': r'after 0\.[0-4]'}


@pytest.mark.slow
@pytest.mark.parametrize('file', FILES, ids=lambda f: f.stem)
def test_notebook_runs(file, tmp_path, monkeypatch):
    monkeypatch.delenv('MPLBACKEND')  # figures are shown, as for a reader
    notebook = nbformat.read(file, as_version=4)
    assert all(not cell.get('outputs') for cell in notebook.cells), 'commit it without outputs'
    NotebookClient(
        notebook, timeout=300, kernel_name='python3', resources={'metadata': {'path': tmp_path}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    printed = ''.join(o.get('text', '') for o in outputs)
    assert re.search(SAYS[file.stem], printed)
    assert any('image/png' in o.get('data', {}) for o in outputs)
