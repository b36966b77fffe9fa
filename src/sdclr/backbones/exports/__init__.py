"""A trained backbone in the file formats of other programs; each is read back as they read it before it is kept."""
