"""What comes out: numbers, caveats, files, pictures, and what a result depends on."""
