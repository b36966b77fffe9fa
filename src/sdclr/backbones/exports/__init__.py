"""A trained backbone in the file formats of other programs; each is read back as they do before it is kept."""
