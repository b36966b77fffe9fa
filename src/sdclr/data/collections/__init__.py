"""N images behind one interface, wherever they are: in memory, in files, in archives, in a decoded store."""
