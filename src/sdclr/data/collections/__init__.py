"""N images behind one interface, wherever they lie: in memory, in files, in archives, in a decoded store."""
