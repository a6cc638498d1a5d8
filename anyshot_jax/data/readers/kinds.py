"""Images of kinds that are not read: what they are, and what to do."""

from pathlib import PurePath

from anyshot_jax.types import InputError


class NotAnImage(InputError):
    """The content is of no image format that is known here."""


class NotRead(InputError):
    """An image of a kind or a size that is not read here: it costs a row and not the run."""


HEIC = "a HEIC image: pip install 'anyshot-jax[heic]' to read it, or export it as JPEG"
DICOM = 'DICOM: export it as PNG or TIFF'
RAW = "a camera's raw file: develop it as JPEG or TIFF"
DRAWING = 'a drawing without pixels: render it as PNG'
LAYERS = "a paint program's own file: export it as PNG"
VOLUME = 'a volume or a slide: export its slices as PNG or TIFF'
OTHER = 'of an image format that is not read: convert it to PNG'
# fmt: off
BY_SUFFIX = {
    **dict.fromkeys(('.heic', '.heif', '.hif'), HEIC),
    **dict.fromkeys(('.dcm', '.dicom'), DICOM),
    **dict.fromkeys((
        '.dng', '.cr2', '.cr3', '.crw', '.nef', '.nrw', '.arw', '.srf', '.sr2', '.orf', '.rw2',
        '.raf', '.pef', '.srw', '.x3f', '.3fr', '.iiq', '.rwl',
    ), RAW),
    **dict.fromkeys(('.svg', '.svgz', '.eps', '.ai', '.wmf', '.emf'), DRAWING),
    **dict.fromkeys(('.psd', '.psb', '.xcf', '.kra', '.afphoto'), LAYERS),
    **dict.fromkeys(('.nii', '.nrrd', '.mha', '.mhd', '.svs', '.czi', '.lif', '.nd2'), VOLUME),
    **dict.fromkeys((
        '.jxl', '.tga', '.pcx', '.sgi', '.ico', '.icns', '.cur', '.dds', '.exr', '.hdr', '.pfm',
        '.fits', '.jxr', '.wdp', '.xbm', '.xpm', '.ras', '.j2k', '.jpx', '.flif', '.qoi',
        '.heics', '.jls',
    ), OTHER),
}
# fmt: on
HEIC_BRANDS = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')


def unread_kind(name: str, head: bytes = b'') -> str:
    """Names the kind of image and what to do, by first bytes or suffix; '' for other files."""
    if head[4:8] == b'ftyp' and head[8:12] in HEIC_BRANDS:
        return HEIC
    if head[128:132] == b'DICM':
        return DICOM
    if head.startswith(b'8BPS'):
        return LAYERS
    if head.startswith((b'\xff\x0a', b'\0\0\0\x0cJXL ')):
        return OTHER
    return BY_SUFFIX.get(PurePath(name).suffix.lower(), '')


def has_unread_suffix(name: str) -> bool:
    """True if a file of that name would be such an image."""
    return PurePath(name).suffix.lower() in BY_SUFFIX
