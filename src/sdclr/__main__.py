from sdclr.cli import main

main()
