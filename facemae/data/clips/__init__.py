"""Videos to clips of one face each: detection, tracking, a steady box, frames at one rate, sound beneath."""
