"""The quickstart: one walk through the library, and the page that shows what it found."""
