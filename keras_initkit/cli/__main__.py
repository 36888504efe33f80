"""`python -m keras_initkit.cli`."""

from keras_initkit.cli import main

raise SystemExit(main())
