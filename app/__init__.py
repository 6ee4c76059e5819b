"""The application: its words, its rules, its doors, its faces."""

VERSION = "0.1.0"  # The one place: the build, the images, /version and the instance rows take it from here.
