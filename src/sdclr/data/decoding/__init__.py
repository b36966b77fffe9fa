"""Files -> pixels: opening, checking and decoding image files, safely. Knows no collection."""
